"""config.json as frozen dataclasses: what a run does, validated before anything is loaded.

Field names follow TRL and the papers where the meaning is the same; else units are in the name.
This module imports no torch, so that forms and services can validate before a job exists.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from training.engine.alarm_settings import AlarmsConfig
from training.engine.config_answer import AnswerConfig
from training.engine.config_classify import ClassifyConfig
from training.engine.config_compare import CompareConfig
from training.engine.config_judge import NO_BASE, JudgeConfig
from training.engine.config_ppo import PPOConfig
from training.engine.config_preferences import DPOConfig, RewardConfig
from training.engine.config_pretrain import PretrainConfig
from training.engine.config_trl import GRPOConfig, KTOConfig, ORPOConfig, RLOOConfig, check
from training.engine.errors import ConfigError
from training.engine.packaged import BASES

SCHEMA = 1
#: PyTorch's AdamW, and those of bitsandbytes: moments in 8 bits (arXiv 2110.02861), paged to the
#: processor's memory where the device's is full (arXiv 2305.14314, section 3), or both.
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
METHODS = (
    "sft", "classify", "reward", "dpo", "kto", "orpo", "ppo", "grpo", "rloo", "evaluate", "sample",
    "pretrain", "judge", "answer", "compare",
)  # fmt: skip
#: Methods whose rows may be texts without turns, so that a base needs no chat template.
TEXT_METHODS = ("classify", "pretrain")
#: Methods that train nothing.
IDLE_METHODS = ("evaluate", "sample", "judge", "answer", "compare")
#: Methods whose loss is computed by TRL's own trainers.
TRL_METHODS = ("kto", "orpo", "grpo", "rloo")
#: Methods in which the policy answers prompts and a reward adapter scores the answers.
ONLINE_METHODS = ("ppo", "grpo", "rloo")


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The base model and how its weights are held."""

    source: str
    """`demo` or `minilm` (the packaged SmolLM2 and MiniLM), a Hub id, a local folder, or
    a .gguf file; `none` for a judge that is asked over HTTP."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    dtype: str = "float32"
    """Compute type: float32 or bfloat16."""
    quantization: str = "none"
    """none, int8, or nf4 (4-bit NormalFloat, QLoRA: arXiv 2305.14314)."""
    double_quant: bool = True
    """Quantize the quantization constants too (nf4 only; 4.127 instead of 4.5 bits a weight)."""

    def __post_init__(self) -> None:
        check(bool(self.source), "base.source", self.source, BASES)
        check(self.dtype in ("float32", "bfloat16"), "base.dtype", self.dtype, "float32, bfloat16")
        check(
            self.quantization in ("none", "int8", "nf4"),
            "base.quantization",
            self.quantization,
            "none, int8, nf4",
        )


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The LoRA adapter that is trained (arXiv 2106.09685); of a saved one its own settings hold."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input in sft, classify and pretrain; preference methods need 0."""
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get an adapter."""
    use_dora: bool = False
    """Train each column's magnitude beside its direction (DoRA, arXiv 2402.09353)."""
    use_rslora: bool = False
    """Multiply the update by alpha / sqrt(r) instead of alpha / r (rsLoRA, arXiv 2312.03732)."""
    init_from: str | None = None
    """Folder of the adapter to start from; for DPO, KTO, PPO, GRPO and RLOO also the reference."""

    def __post_init__(self) -> None:
        check(1 <= self.r <= 1024, "adapter.r", self.r, "1 to 1024")
        check(1 <= self.alpha <= 4096, "adapter.alpha", self.alpha, "1 to 4096")
        check(0.0 <= self.dropout < 1.0, "adapter.dropout", self.dropout, "0 up to below 1")
        check(
            bool(self.target_modules), "adapter.target_modules", self.target_modules, "one or more"
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Files relative to the run folder, and bounds in tokens."""

    train: str = "data/train.jsonl"
    """Training rows."""
    test: str = "data/test.jsonl"
    """Held-out rows."""
    prompts: str = "data/prompts.jsonl"
    """Prompts for ppo, grpo, rloo and sample."""
    max_length: int = 1024
    """Tokens of prompt and response together; longer responses are cut (and counted)."""
    max_prompt_length: int = 512
    """Tokens of a prompt; rows with longer prompts are left out (and counted)."""
    max_test_rows: int | None = None
    """Measure on the first so many held-out rows only; all of them by default."""

    def __post_init__(self) -> None:
        check(8 <= self.max_length <= 1_000_000, "data.max_length", self.max_length, "8 to 1000000")
        check(
            1 <= self.max_prompt_length < self.max_length,
            "data.max_prompt_length",
            self.max_prompt_length,
            "1 up to below data.max_length",
        )
        check(
            self.max_test_rows is None or self.max_test_rows >= 1,
            "data.max_test_rows",
            self.max_test_rows,
            "1 or more",
        )
        for name in ("train", "test", "prompts"):
            value = getattr(self, name)
            inside = not value.startswith("/") and ".." not in value.split("/")
            check(inside, f"data.{name}", value, "a path inside the run folder")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    optimizer: str = "adamw"
    """adamw, or one of bitsandbytes: adamw_8bit, paged_adamw, paged_adamw_8bit."""
    lr: float = 2e-4
    """Peak learning rate."""
    batch_size: int = 4
    """Rows (pairs, conversations, windows of documents) per optimizer step."""
    epochs: int = 1
    """Passes over the training rows."""
    max_steps: int | None = None
    """Stop after so many optimizer steps even inside an epoch."""
    warmup_ratio: float = 0.03
    """Share of the steps over which the rate rises from 0."""
    schedule: str = "linear"
    """linear (to 0) or constant after the warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    adam_eps: float = 1e-8
    """Adam's epsilon (PPO papers use 1e-5)."""

    def __post_init__(self) -> None:
        check(
            self.optimizer in OPTIMIZERS,
            "optim.optimizer",
            self.optimizer,
            ", ".join(OPTIMIZERS),
        )
        check(0.0 < self.lr <= 1.0, "optim.lr", self.lr, "above 0 up to 1")
        check(1 <= self.batch_size <= 4096, "optim.batch_size", self.batch_size, "1 to 4096")
        check(1 <= self.epochs <= 1000, "optim.epochs", self.epochs, "1 to 1000")
        check(
            self.max_steps is None or self.max_steps >= 1,
            "optim.max_steps",
            self.max_steps,
            "1 or more",
        )
        check(0.0 <= self.warmup_ratio <= 1.0, "optim.warmup_ratio", self.warmup_ratio, "0 to 1")
        check(
            self.schedule in ("linear", "constant"),
            "optim.schedule",
            self.schedule,
            "linear, constant",
        )
        check(self.weight_decay >= 0.0, "optim.weight_decay", self.weight_decay, "0 or more")
        check(self.max_grad_norm > 0.0, "optim.max_grad_norm", self.max_grad_norm, "above 0")
        check(self.adam_eps > 0.0, "optim.adam_eps", self.adam_eps, "above 0")


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Supervised fine-tuning: cross-entropy on assistant turns."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measurements on held-out rows; each part runs where its adapter is given."""

    reward_adapter: str | None = None
    """Reward adapter: accuracy and margin on the held-out pairs."""
    policy_adapter: str | None = None
    """Policy adapter: implicit-reward margin and accuracy against the reference."""
    reference_adapter: str | None = None
    """What the policy is compared with; the bare base where none is given."""
    beta: float = 0.1
    """Scale of the implicit reward."""
    generate: int = 0
    """Answer so many held-out prompts with policy and reference: reward, KL, length, EOS rate.

    Needs both adapters; without one of them nothing is generated.
    """
    max_new_tokens: int = 48
    """Longest generated response in tokens."""
    general: bool = False
    """Measure perplexity of general text (data/general.jsonl, or the enclosed) and the share of
    general questions answered right (data/probes.jsonl, or the enclosed) under reference and
    policy: what was forgotten. Needs policy_adapter."""
    gate: float | None = None
    """Largest rise of that perplexity, as a share (0.1: a tenth); above it the evaluation fails."""
    probe_gate: float | None = None
    """Largest fall of that share of questions (0.1: 5 of the enclosed 50); below it the evaluation
    fails, where the interval of the fall leaves out 0."""

    def __post_init__(self) -> None:
        check(self.beta > 0.0, "evaluate.beta", self.beta, "above 0")
        can = not self.general or self.policy_adapter is not None
        check(can, "evaluate.general", self.general, "false without evaluate.policy_adapter")
        bound = self.gate is None or (self.general and 0.0 < self.gate <= 100.0)
        check(
            bound, "evaluate.gate", self.gate, "above 0 up to 100, with evaluate.general; or null"
        )
        bound = self.probe_gate is None or (self.general and 0.0 < self.probe_gate < 1.0)
        check(
            bound,
            "evaluate.probe_gate",
            self.probe_gate,
            "above 0 and below 1, with evaluate.general; or null",
        )
        check(self.generate >= 0, "evaluate.generate", self.generate, "0 or more")
        check(self.max_new_tokens >= 1, "evaluate.max_new_tokens", self.max_new_tokens, "1 or more")
        check(
            self.reward_adapter is not None or self.policy_adapter is not None,
            "evaluate",
            "without adapters",
            "reward_adapter, policy_adapter, or both",
        )


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Answers to prompts, for people to judge."""

    samples_per_prompt: int = 2
    """Different answers to each prompt."""
    max_new_tokens: int = 64
    """Longest response in tokens."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the most probable token."""
    top_p: float = 1.0
    """Sample from the most probable tokens that together hold this probability."""

    def __post_init__(self) -> None:
        check(
            1 <= self.samples_per_prompt <= 64,
            "sample.samples_per_prompt",
            self.samples_per_prompt,
            "1 to 64",
        )
        check(
            1 <= self.max_new_tokens <= 100_000,
            "sample.max_new_tokens",
            self.max_new_tokens,
            "1 to 100000",
        )
        check(0.0 <= self.temperature <= 10.0, "sample.temperature", self.temperature, "0 to 10")
        check(0.0 < self.top_p <= 1.0, "sample.top_p", self.top_p, "above 0 up to 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything one run does. Exactly one method section is filled: that of `method`."""

    schema: int = SCHEMA
    """Version of this layout; a newer one is refused."""
    method: str
    """sft, classify, reward, dpo, kto, orpo, ppo, grpo, rloo, evaluate, sample, pretrain, judge,
    answer, compare."""
    seed: int = 0
    """Seed of every random draw."""
    threads: int = 2
    """Processor threads; part of the config because sums depend on it."""
    tuning: str = "lora"
    """lora trains an adapter (on a 4-bit base: QLoRA), full the base's own weights."""
    base: BaseConfig
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    row_budget: int = 2048
    """Tokens in one packed row; memory grows with it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    checkpoint_every: int = 0
    """Optimizer steps between checkpoints; 0 leaves them to the clock."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints, each at the next step; 0 leaves them to the count of steps."""
    checkpoint_keep: int = 2
    """How many of its checkpoints an attempt keeps, the newest ones; 0 keeps all."""
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    sft: SFTConfig | None = None
    classify: ClassifyConfig | None = None
    reward: RewardConfig | None = None
    dpo: DPOConfig | None = None
    kto: KTOConfig | None = None
    orpo: ORPOConfig | None = None
    ppo: PPOConfig | None = None
    grpo: GRPOConfig | None = None
    rloo: RLOOConfig | None = None
    evaluate: EvaluateConfig | None = None
    sample: SampleConfig | None = None
    pretrain: PretrainConfig | None = None
    judge: JudgeConfig | None = None
    answer: AnswerConfig | None = None
    compare: CompareConfig | None = None

    def __post_init__(self) -> None:
        check(self.schema == SCHEMA, "schema", self.schema, f"{SCHEMA}")
        check(self.method in METHODS, "method", self.method, ", ".join(METHODS))
        check(0 <= self.seed < 2**63, "seed", self.seed, "0 up to 2**63 - 1")
        check(1 <= self.threads <= 1024, "threads", self.threads, "1 to 1024")
        check(64 <= self.row_budget <= 1_000_000, "row_budget", self.row_budget, "64 to 1000000")
        check(self.checkpoint_every >= 0, "checkpoint_every", self.checkpoint_every, "0 or more")
        check(
            self.checkpoint_every_s >= 0.0,
            "checkpoint_every_s",
            self.checkpoint_every_s,
            "0 or more",
        )
        check(self.checkpoint_keep >= 0, "checkpoint_keep", self.checkpoint_keep, "0 or more")
        given = [name for name in METHODS if getattr(self, name) is not None]
        check(
            given == [self.method], "method sections", given, f"the section {self.method!r} alone"
        )
        if self.method not in ("sft", "classify", "reward", "dpo", "kto", "orpo", "pretrain"):
            # a setting that would not be obeyed is refused rather than passed over
            asked, instead = self.optim.max_steps, "null here"
            if self.method in ONLINE_METHODS:
                instead += f" ({self.method.upper()} has {self.method}.updates)"
            check(asked is None, "optim.max_steps", asked, instead)
        if self.method == "kto":
            size = self.optim.batch_size
            check(size >= 2, "optim.batch_size", size, "2 or more (KTO compares within a batch)")
        if self.method in IDLE_METHODS:
            optimizer = self.optim.optimizer
            check(optimizer == "adamw", "optim.optimizer", optimizer, "adamw here, where none runs")
        check(self.tuning in ("lora", "full"), "tuning", self.tuning, "lora, full")
        if self.tuning == "full":
            self._check_full()
        if self.method in ("evaluate", "answer"):
            start, own = self.adapter.init_from, "policy_adapter"
            own = own if self.method == "evaluate" else "adapter"
            check(start is None, "adapter.init_from", start, f"null; use {self.method}.{own}")
        if self.method == "compare":
            bare = self.optim == OptimConfig() and self.adapter == AdapterConfig()
            check(
                bare, "optim or adapter", "set", "both left out; each stage of compare has its own"
            )
        if self.method in ("reward", "dpo", "ppo", *TRL_METHODS):
            check(self.adapter.dropout == 0.0, "adapter.dropout", self.adapter.dropout, "0 here")
        self._check_base()
        self.alarms.expect_obeyed(self.method)
        self._check_budgets()

    def _check_base(self) -> None:
        """Raise ConfigError where a base is named that is not loaded, or none where one is."""
        remote = self.judge is not None and self.judge.url is not None
        what = f"{NO_BASE} with judge.url, which loads no base" if remote else "a base to load"
        check((self.base.source == NO_BASE) == remote, "base.source", self.base.source, what)
        start = self.adapter.init_from if remote else None
        check(start is None, "adapter.init_from", start, "null with judge.url")

    def _check_budgets(self) -> None:
        """Raise ConfigError where two settings would end a run over one figure."""
        budget = self.ppo.kl_budget if self.ppo is not None else None
        if budget is not None and self.alarms.kl_budget == "stop":
            raise ConfigError(
                f"ppo.kl_budget is {budget:g} and alarms.kl_budget is 'stop': both would end the "
                "run over its KL to the reference, and keep different weights. Leave "
                "ppo.kl_budget out, or set alarms.kl_budget to warn or off; which does what: "
                "docs/methods/ppo.md, The budget"
            )

    def _check_full(self) -> None:
        """Raise ConfigError for what cannot be, or would be passed over, where no adapter is."""
        if self.method in ONLINE_METHODS:
            raise ConfigError(
                f"tuning is 'full'; allowed for {self.method}: lora, because policy, reference and "
                "reward model are adapters on the one base, which has to stay as it is"
            )
        if self.method in TRL_METHODS:
            raise ConfigError(
                f"tuning is 'full'; allowed for {self.method}: lora (full trains sft, classify, "
                "reward, dpo, pretrain)"
            )
        if self.method in IDLE_METHODS:
            raise ConfigError(
                f"tuning is 'full', and {self.method} trains nothing; leave tuning out, and name "
                "the folder of a fully trained model in base.source"
            )
        if self.base.quantization != "none":
            raise ConfigError(
                f"tuning is 'full' and base.quantization is {self.base.quantization!r}; allowed: "
                "none, because quantized weights have no gradient (tuning lora trains an adapter "
                "on them: QLoRA)"
            )
        if self.adapter.init_from is not None:
            raise ConfigError(
                "adapter.init_from is set and tuning is 'full'; allowed: null. To start from a "
                "trained model give its folder as base.source; an adapter becomes one with "
                "python -m training.engine merge"
            )
        if self.adapter != AdapterConfig():
            raise ConfigError(
                "adapter holds settings and tuning is 'full'; leave them out: there is no adapter"
            )


def from_dict(data: Any) -> RunConfig:
    """A validated RunConfig from parsed JSON. Raises ConfigError naming what is wrong."""
    if not isinstance(data, dict):
        raise ConfigError("config.json must hold one JSON object")
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        # said before its fields are looked at, which this version may not know
        raise ConfigError(
            f"schema is {schema}, and this code knows up to {SCHEMA}: the run was made by a newer "
            "version; go on with that one"
        )
    method = data.get("method")
    if method in METHODS and method not in ONLINE_METHODS:
        data = {
            method: {},
            **data,
        }  # a method without settings of its own may leave its section out
    config = _build(RunConfig, data, "")
    assert isinstance(config, RunConfig)  # noqa: S101 - narrows the type
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The inverse of `from_dict`: plain JSON values, without the sections that are not used."""
    return json.loads(
        json.dumps({name: value for name, value in asdict(config).items() if value is not None})
    )


def config_digest(config: RunConfig) -> str:
    """SHA-256 over the canonical JSON of what a config sets: equal configs, equal digests.

    Fields at their default are left out, so that a field which a later version adds changes no
    digest of a run that does not use it.
    """
    text = json.dumps(_set_fields(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _set_fields(part: Any) -> dict[str, Any]:
    """The fields of a section that differ from their defaults; a method's own section is kept."""
    found: dict[str, Any] = {}
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            inner = _set_fields(value)
            if inner or item.default is None:
                found[item.name] = inner
        elif value != item.default:
            found[item.name] = value
    return found


def _build(kind: type, data: Any, path: str) -> Any:
    """An instance of dataclass `kind` from a dict; `path` names it in messages."""
    where = path or "config.json"
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must be an object, not {type(data).__name__}")
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(
            f"{where} has unknown fields: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    hints = typing.get_type_hints(kind)
    values = {
        name: _convert(hints[name], value, f"{path}.{name}".lstrip("."))
        for name, value in data.items()
    }
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default was left out
        raise ConfigError(f"{where}: {error}".replace(f"{kind.__name__}.__init__() ", "")) from None


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type says, or a ConfigError."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        if types.NoneType in options:
            return None
        raise ConfigError(f"{path} is null; it needs a value")
    wanted = next(option for option in options if option is not types.NoneType)
    if is_dataclass(wanted):
        return _build(typing.cast(type, wanted), value, path)
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{path} must be a list of strings")
        return tuple(value)
    if typing.get_origin(wanted) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{path} must be an object, not {type(value).__name__}")
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{path} is {value!r}; it must be of type {wanted.__name__}")
    return value
