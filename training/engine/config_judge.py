"""Section of config.json for a machine that judges comparisons; see `config`. Holds no torch."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.config_trl import check
from training.engine.posting import check_url

#: Version of the wording around the rubric (`judge_prompts`): another wording is another judge.
WORDING = 1
HOW = ("verdict", "letters")
RUBRIC = (
    "Prefer the answer that a careful person who asked this would prefer. Weigh first whether it "
    "is true and harmless, then whether it does what was asked, then whether it is clear. Length "
    "is no merit. The order in which the answers stand says nothing about them."
)
#: `base.source` of a judge that is asked over HTTP: no base is loaded.
NO_BASE = "none"
#: File of an attempt that holds every reply.
ANSWERS = "answers.jsonl"
#: Environment variable that holds the endpoint's key.
KEY = "JUDGE_API_KEY"
#: Set by a launcher that has checked where the host is: no other address is connected to.
ADDRESSES = "JUDGE_ADDRESSES"


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A language model compares two answers: a base (with adapter.init_from), or an endpoint."""

    rubric: str = RUBRIC
    """What makes an answer the better one, in words; part of every question."""
    how: str = "verdict"
    """verdict: reasons are generated and end with [[A]], [[B]] or [[C]]; letters: the
    log-probabilities of the letters A, B and C as the next token are compared (a local base only).
    """
    max_new_tokens: int = 256
    """Longest verdict in tokens."""
    url: str | None = None
    """Address of an OpenAI-compatible server up to and including /v1: https, or http on this
    machine. Its key is read from the environment variable JUDGE_API_KEY; base.source is none."""
    model: str | None = None
    """What the server calls the model."""
    timeout_s: float = 60.0
    """Longest wait for one reply."""
    retries: int = 4
    """Further tries after a failure that may pass."""
    requests_per_minute: float = 0.0
    """Requests, further tries included, are at least 60 / this many seconds apart; 0: no limit."""
    max_tokens_total: int | None = None
    """Budget in tokens, asked and answered together: what might exceed it is not asked."""
    price_in: float = 0.0
    """Price of a million tokens that are asked, in whatever currency max_cost is."""
    price_out: float = 0.0
    """Price of a million tokens that are answered."""
    max_cost: float | None = None
    """Budget in money: what might exceed it is not asked."""

    def __post_init__(self) -> None:
        check(bool(self.rubric.strip()), "judge.rubric", self.rubric, "not empty")
        check(len(self.rubric) <= 20_000, "judge.rubric", "too long", "up to 20000 characters")
        check(self.how in HOW, "judge.how", self.how, ", ".join(HOW))
        tokens = self.max_new_tokens
        check(1 <= tokens <= 100_000, "judge.max_new_tokens", tokens, "1 to 100000")
        check(0.0 < self.timeout_s <= 3600.0, "judge.timeout_s", self.timeout_s, "above 0 to 3600")
        check(0 <= self.retries <= 100, "judge.retries", self.retries, "0 to 100")
        rate = self.requests_per_minute
        check(0.0 <= rate <= 1e6, "judge.requests_per_minute", rate, "0 to 1000000")
        budget = self.max_tokens_total
        check(budget is None or budget >= 1, "judge.max_tokens_total", budget, "1 or more")
        for name in ("price_in", "price_out"):
            value = getattr(self, name)
            check(0.0 <= value <= 1e9, f"judge.{name}", value, "0 or more")
        cost = self.max_cost
        check(cost is None or cost > 0.0, "judge.max_cost", cost, "above 0")
        priced = self.price_in > 0.0 or self.price_out > 0.0
        check(cost is None or priced, "judge.max_cost", cost, "null without price_in or price_out")
        self._check_endpoint()

    def _check_endpoint(self) -> None:
        """Raise ConfigError for settings of an endpoint where none is asked, and the reverse."""
        if self.url is not None:
            check_url("judge.url", self.url)
            check(bool(self.model), "judge.model", self.model, "the model's name on the server")
            check(
                self.how == "verdict",
                "judge.how",
                self.how,
                "verdict with judge.url: servers differ in whether they give log-probabilities",
            )
            return
        check(self.model is None, "judge.model", self.model, "null without judge.url")
        for name, default in (("timeout_s", 60.0), ("retries", 4), ("requests_per_minute", 0.0)):
            value = getattr(self, name)
            check(value == default, f"judge.{name}", value, f"{default:g} without judge.url")
