"""What scores PPO's answers: a reward adapter on the base, another model, or an HTTP endpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.engine.batching import Packing
from training.engine.config import PPOConfig
from training.engine.data import PromptRow, Tree
from training.engine.distributed import add_up, rank, share
from training.engine.endpoint import BATCH, Endpoint
from training.engine.errors import BaseModelError, DataError, RewardSourceError
from training.engine.files import cannot_write
from training.engine.generation import Generation, text_of
from training.engine.models import Base, pick_device
from training.engine.reward import ADAPTER as REWARD
from training.engine.reward import attach, tree_scores
from training.engine.rundir import RunDir
from training.engine.sources import locate

#: Where an attempt writes the scores that it was given by an endpoint.
SCORES = "scores.jsonl"


@dataclass(frozen=True)
class Answers:
    """What is to be scored: B answers, and the same as trees with equally many of them."""

    prompts: Sequence[PromptRow]
    answers: Sequence[Generation]
    trees: Sequence[Tree]
    packing: Packing


class RewardSource(Protocol):
    """Scores answers, in their order."""

    def scores(self, asked: Answers) -> Tensor:
        """Returns: (B,) on the CPU"""


def reward_source(run: RunDir, base: Base, ppo: PPOConfig) -> RewardSource:
    """The one source that the config names. Raises BaseModelError where it cannot be loaded."""
    if ppo.reward_adapter is not None:
        return AdapterReward(base, attach(base, ppo.reward_adapter))
    if ppo.reward_model is not None:
        return load_reward_model(run, base, ppo.reward_model, ppo.reward_model_revision)
    assert ppo.reward_url is not None  # noqa: S101 - the config guarantees it
    endpoint = Endpoint(
        url=ppo.reward_url, timeout_s=ppo.reward_url_timeout_s, retries=ppo.reward_url_retries
    )
    return EndpointReward(run, base, endpoint)


def checked_scores(source: RewardSource, asked: Answers) -> Tensor:
    """The source's scores. Raises RewardSourceError for one that is no finite number."""
    scores = source.scores(asked)
    if not bool(torch.isfinite(scores).all()):
        worst = int((~torch.isfinite(scores)).nonzero()[0])
        prompt = asked.prompts[asked.answers[worst].prompt]
        raise RewardSourceError(
            f"the reward of an answer to prompt {prompt.id} is {scores[worst].item()}: "
            "nothing can be learnt from it; look at what scores the answers"
        )
    return scores


@dataclass(frozen=True)
class AdapterReward:
    """A reward adapter and its head on the base itself; no second model is in memory."""

    base: Base
    head: Any

    def scores(self, asked: Answers) -> Tensor:
        with self.base.use(REWARD):
            return tree_scores(self.base, self.head, asked.trees, asked.packing).flatten()


@dataclass(frozen=True)
class ModelReward:
    """A sequence-classification model with one score, as transformers computes it.

    The conversation goes through that model's own chat template. Answers are scored one at a time:
    what padding and pooling make of a batch cannot matter.
    """

    base: Base
    model: nn.Module
    tokenizer: Any
    name: str

    @torch.no_grad()
    def scores(self, asked: Answers) -> Tensor:
        device = next(self.model.parameters()).device
        own = share([len(answer.tokens) for answer in asked.answers])
        found = torch.zeros(len(asked.answers))
        for index in own:
            answer = asked.answers[index]
            said = {"role": "assistant", "content": text_of(self.base, answer)}
            try:
                text = self.tokenizer.apply_chat_template(
                    [*asked.prompts[answer.prompt].messages, said], tokenize=False
                )
            except TemplateError as error:
                raise DataError(
                    f"{self.name}: its chat template refuses a prompt: {error}"
                ) from None
            ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            found[index] = self.model(input_ids=ids.to(device)).logits.float().view(())
        add_up(found)
        return found


def load_reward_model(run: RunDir, base: Base, source: str, revision: str | None) -> ModelReward:
    """The model of `ppo.reward_model`, frozen. Raises BaseModelError for what is no such model."""
    where = f"ppo.reward_model {source}"
    if not Path(source).expanduser().is_dir():
        # the commit that the run's first attempt found
        revision = run.inputs["adapters"]["ppo.reward_model"]
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        located = locate(source)
        tokenizer = AutoTokenizer.from_pretrained(located, **settings)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            located,
            **settings,
            use_safetensors=True,
            dtype=getattr(torch, base.config.dtype),
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BaseModelError(f"{where} could not be loaded: {reason}") from error
    except BaseModelError as error:
        raise BaseModelError(f"{where}: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelError(
            f"{where} has no weights for {', '.join(missing[:3])}: it is no reward model"
        )
    if model.config.num_labels != 1:
        raise BaseModelError(f"{where} gives {model.config.num_labels} numbers instead of a score")
    if tokenizer.chat_template is None:
        raise BaseModelError(
            f"{where}: its tokenizer has no chat template, so how it wants to read a conversation "
            "is unknown; put a chat_template.jinja beside the tokenizer"
        )
    model.requires_grad_(False).eval().to(pick_device())
    return ModelReward(base, model, tokenizer, where)


class EndpointReward:
    """An HTTP endpoint, which is asked about an answer once in a run, by the leader.

    What it said is written down before it counts, by the hash of what it was asked: an attempt that
    goes on after another has the scores that the other had, whatever the endpoint would say now.
    """

    def __init__(self, run: RunDir, base: Base, endpoint: Endpoint) -> None:
        self._base = base
        self._endpoint = endpoint
        self._path = run.attempt_path / SCORES
        self._known: dict[str, float] = {}
        for path in sorted(run.path.glob(f"attempts/*/{SCORES}")):
            self._known |= read_scores(path)

    def scores(self, asked: Answers) -> Tensor:
        found = self._ask(asked) if rank() == 0 else torch.zeros(len(asked.answers))
        add_up(found)
        return found

    def _ask(self, asked: Answers) -> Tensor:
        bodies = [
            {
                "prompt": asked.prompts[answer.prompt].messages,
                "response": text_of(self._base, answer),
                "finished": answer.finished,
            }
            for answer in asked.answers
        ]
        keys = [hash_of(body) for body in bodies]
        unknown = {
            key: body for key, body in zip(keys, bodies, strict=True) if key not in self._known
        }
        for start in range(0, len(unknown), BATCH):
            some = list(unknown)[start : start + BATCH]
            given = self._endpoint.scores([unknown[key] for key in some])
            self._remember(dict(zip(some, given, strict=True)))
        return torch.tensor([self._known[key] for key in keys])

    def _remember(self, scores: dict[str, float]) -> None:
        # an empty line first: what a crash cut before this stays alone
        lines = ["", *(json.dumps({"answer": key, "score": scores[key]}) for key in scores), ""]
        try:
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write("\n".join(lines))
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._known |= scores


def hash_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_scores(path: Path) -> dict[str, float]:
    """Scores by the hash of their answer; a line that a crash cut is left out."""
    found: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            row = json.loads(line)
            found[str(row["answer"])] = float(row["score"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
