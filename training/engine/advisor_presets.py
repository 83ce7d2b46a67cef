"""The runs that an option of the advisor starts from, and whether they fit the hardware by `plan`.

A preset is a RunConfig as JSON. Where it does not fit the device as it stands, settings that change
neither method nor kind of tuning are added in the order of ECONOMIES, those that help; what would
turn LoRA into QLoRA is another option, and is not done behind the user's back.

Where the numbers come from: learning rates and epochs of an encoder from BERT (arXiv 1810.04805),
adapters on all linear layers from QLoRA (arXiv 2305.14314), DPO's rate from a hundredth part to a
tenth of an adapter's own (full fine-tuning of a 135M base took 1e-6), the rest is the engine's
defaults.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from training.engine.advisor_case import Case
from training.engine.advisor_rules import LEAST_EXAMPLES, LEAST_ROWS
from training.engine.config import from_dict
from training.engine.errors import BaseModelError
from training.engine.planner import Lengths, plan, with_settings
from training.engine.planner_shapes import BaseShape, shape_of

Json = dict[str, Any]

#: What a preset names where the case's own base writes text and an encoder is wanted; its shape is
#: the published one of BERT-base.
ENCODER = "google-bert/bert-base-uncased"
ENCODER_CONFIG: Json = {
    "model_type": "bert", "vocab_size": 30_522, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
    "type_vocab_size": 2,
}  # fmt: skip
ENCODER_SHAPE = shape_of(ENCODER_CONFIG, ENCODER)
#: Settings that save memory and change neither what is trained nor on what, the gentlest first.
ECONOMIES: tuple[Json, ...] = (
    {"row_budget": 1024},
    {"gradient_checkpointing": True},
    {"base.dtype": "bfloat16"},
    {"optim.optimizer": "adamw_8bit"},
    {"optim.optimizer": "paged_adamw_8bit"},
    {"row_budget": 256},
)
#: Methods that train nothing.
IDLE = ("sample", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of an option, and what it needs. Folders of an earlier stage start with its name."""

    name: str
    config: Json
    """What config.json may hold."""
    total_bytes: int | None = None
    """By `plan`; None where the base's shape is not known."""
    fits: bool | None = None
    """None where shape or device is not known."""
    economies: Json = field(default_factory=dict)
    """Settings that were added to make it fit."""
    seconds: float | None = None
    """For the rows that the case has; None where they, or the device's speed, are not known."""
    least_seconds: float | None = None
    """For LEAST_ROWS rows."""
    refused: str | None = None
    """Why the planner will not have it at all."""

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @property
    def trains(self) -> bool:
        return self.method not in IDLE

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "config": self.config,
            "total_bytes": self.total_bytes,
            "fits": self.fits,
            "economies": self.economies,
            "seconds": self.seconds,
            "refused": self.refused,
        }


def stages(option: str, case: Case) -> list[Stage]:
    """The runs of an option: the gentlest of its variants that fits, else the smallest one."""
    found: list[Stage] = []
    for variant in variants(option, case):
        trained = sum(config["method"] not in IDLE for _, config in variant)
        hours = None if case.budget_hours is None else case.budget_hours / max(1, trained)
        found = [placed(name, config, case, hours) for name, config in variant]
        done = all(stage.fits is not False and stage.refused is None for stage in found)
        if done and not over_budget(found, case):
            break
    return found


def least_hours(found: Collection[Stage]) -> float:
    """Hours that LEAST_ROWS rows take in every stage together; 0 where no speed is known."""
    return sum(stage.least_seconds or 0.0 for stage in found) / 3600


def over_budget(found: Collection[Stage], case: Case) -> bool:
    return case.budget_hours is not None and least_hours(found) > case.budget_hours


def missing_methods(found: Collection[Stage], methods: Collection[str]) -> list[str]:
    return [stage.method for stage in found if stage.method not in methods]


def variants(option: str, case: Case) -> Iterator[list[tuple[str, Json]]]:
    """Lists of (name, config), from the one that holds most to the one that holds least."""
    examples = case.labelled_examples
    taught = examples is None or examples >= LEAST_EXAMPLES
    if option in ("prompting", "rag"):
        for held in ("none", "nf4"):
            yield [("sample", sample(case, held, documents=option == "rag"))]
    elif option == "encoder":
        yield [("classify", classifier(case))]
    elif option in ("lora", "qlora", "full"):
        name = taught_by(case)
        yield [(name, supervised(case, option, name))]
    elif option == "rag_lora":
        for how in ("lora", "qlora"):
            yield [
                ("sft", supervised(case, how, "sft", documents=True)),
                ("sample", sample(case, held_by(how), documents=True, adapter="sft/adapter")),
            ]
    elif option == "pretrain_sft":
        for how in ("full", "lora", "qlora"):
            first = ("pretrain", supervised(case, how, "pretrain"))
            then = (taught_by(case), after_pretraining(case, how))
            yield [first, then] if taught else [first]
    else:
        for how in ("lora", "qlora"):
            before = [("sft", supervised(case, how, "sft"))] if taught else []
            yield [*before, *preference(option, case, how, start=bool(before))]


def held_by(how: str) -> str:
    return "nf4" if how == "qlora" else "none"


def common(case: Case, how: str = "lora", *, documents: bool = False) -> Json:
    """What every run of a case shares."""
    dtype = "bfloat16" if case.device == "gpu" else "float32"
    longest = text_length(case, documents=documents)
    found: Json = {
        "base": {"source": case.base, "dtype": dtype, "quantization": held_by(how)},
        "data": {"max_length": longest, "max_prompt_length": 3 * longest // 4},
    }
    if how == "full":
        return found | {"tuning": "full"}
    return found | {"adapter": {"target_modules": targets(case.shape)}}


def text_length(case: Case, *, documents: bool) -> int:
    """Room for twice the average example, and for a few passages that were looked up."""
    wanted = 2 ** math.ceil(math.log2(2 * case.example_tokens)) + (1536 if documents else 0)
    bound = (case.shape.positions if case.shape else None) or 4096
    return max(8, min(max(wanted, 256), bound, 8192))


def targets(shape: BaseShape | None) -> list[str]:
    """All linear layers of a block; an encoder's queries and values (its names may repeat)."""
    if shape is None:
        return ["q_proj", "v_proj"]
    names = [layer.name for layer in shape.linears]
    return names if shape.decoder else [names[0], names[2]]


def supervised(case: Case, how: str, method: str, *, documents: bool = False) -> Json:
    few = case.labelled_examples is not None and case.labelled_examples < 1000
    optim: Json = {"lr": 2e-5 if how == "full" else 2e-4, "batch_size": 8}
    if method != "pretrain":
        optim["epochs"] = 3 if few else 1
    return {"method": method, **common(case, how, documents=documents), "optim": optim}


def classifier(case: Case) -> Json:
    own = case.shape is not None and not case.shape.decoder
    length = min(512, text_length(case, documents=False))
    return {
        "method": "classify",
        "tuning": "full",
        "base": {"source": case.base if own else ENCODER},
        "data": {"max_length": length, "max_prompt_length": length // 2},
        "optim": {"lr": 3e-5, "batch_size": 16, "epochs": 3},
    }


def after_pretraining(case: Case, how: str) -> Json:
    """The second stage, on what continued pretraining left: a whole model, or an adapter.

    A classifier does not start from a language model's adapter, so that is merged first
    (`python -m training.engine merge --out pretrain/merged`).
    """
    method = taught_by(case)
    found = supervised(case, "lora" if how == "full" else how, method)
    if how != "full" and method == "sft":
        return with_settings(found, {"adapter.init_from": "pretrain/adapter"})
    source = "pretrain/model" if how == "full" else "pretrain/merged"
    return with_settings(found, {"base.source": source})


def taught_by(case: Case) -> str:
    """The method that learns from labelled examples of the task."""
    return "classify" if case.task == "classification" else "sft"


def preference(option: str, case: Case, how: str, *, start: bool) -> list[tuple[str, Json]]:
    begin = {"adapter.init_from": "sft/adapter"} if start else {}
    if option == "dpo":
        config = {"method": "dpo", **common(case, how), "optim": {"lr": 2e-5, "batch_size": 8}}
        return [("dpo", with_settings(config, begin))]
    reward = {"method": "reward", **common(case, how), "optim": {"batch_size": 8}}
    policy = {
        "method": "ppo",
        **common(case, how),
        "optim": {"lr": 3e-5, "adam_eps": 1e-5},
        "ppo": {"reward_adapter": "reward/adapter", "updates": 64},
    }
    return [("reward", reward), ("ppo", with_settings(policy, begin))]


def sample(case: Case, held: str, *, documents: bool, adapter: str | None = None) -> Json:
    config = common(case, "qlora" if held == "nf4" else "lora", documents=documents)
    return {
        "method": "sample",
        "base": config["base"],
        "data": config["data"],
        "adapter": {"init_from": adapter},
        "sample": {"samples_per_prompt": 1, "temperature": 0.0, "max_new_tokens": 256},
    }


@dataclass(frozen=True)
class Needs:
    """Bytes of the device, operations of a step, and why the planner would not say either."""

    total_bytes: int = 0
    flops_per_step: float = 0.0
    refused: str | None = None


@lru_cache(maxsize=4096)
def planned(text: str, shape: BaseShape, device: str, example_tokens: int) -> Needs:
    """What a preset needs by `plan`. text: the preset as JSON.

    Kept, because whoever looks for what would change the advice asks for the same runs hundreds of
    times.
    """
    try:
        run = from_dict(json.loads(text))
        # answers are counted one at a time; whoever serves many at once needs more
        rows = 1 if run.method == "sample" else None
        lengths = Lengths(mean=float(example_tokens), rows=rows)
        found = plan(run, shape, None, lengths=lengths, device=device)
    except BaseModelError as error:
        return Needs(refused=str(error))
    return Needs(found.total_bytes, found.time.flops_per_step)


def placed(name: str, config: Json, case: Case, hours: float | None) -> Stage:
    """A preset on the case's device: planned, made to fit where it can be, cut to so many hours."""
    own_shape = config["base"]["source"] != ENCODER
    shape = case.shape if own_shape else ENCODER_SHAPE
    if shape is None:
        return Stage(name=name, config=config)

    def needs(asked: Json) -> Needs:
        return planned(json.dumps(asked), shape, case.device, case.example_tokens)

    now = needs(config)
    if now.refused is not None:
        return Stage(name=name, config=config, refused=now.refused)
    added: Json = {}
    if case.device_bytes is not None:
        for economy in economies(config, case.device):
            if now.total_bytes <= case.device_bytes:
                break
            smaller = needs(with_settings(config, economy))
            if smaller.refused is None and smaller.total_bytes < now.total_bytes:
                config, added = with_settings(config, economy), added | economy
                now = smaller
    fits = None if case.device_bytes is None else now.total_bytes <= case.device_bytes
    timed = in_budget(config, case, now.flops_per_step, hours)
    return Stage(name=name, total_bytes=now.total_bytes, fits=fits, economies=added, **timed)


def economies(config: Json, device: str) -> Iterator[Json]:
    """Those of ECONOMIES that a config may take."""
    idle = config["method"] in IDLE
    for economy in ECONOMIES:
        ((name, value),) = economy.items()
        if idle and name != "base.dtype":
            continue
        if str(value).startswith("paged") and device == "cpu":
            continue
        yield economy


def in_budget(config: Json, case: Case, flops_per_step: float, hours: float | None) -> Json:
    """config with at most the steps that the hours pay for, seconds and least_seconds."""
    method = config["method"]
    if case.device_tflops is None or method in IDLE:
        return {"config": config, "seconds": None, "least_seconds": None}
    step = flops_per_step / (case.device_tflops * 1e12)
    if method == "ppo":
        steps: int | None = config["ppo"]["updates"]
        least = 1
    else:
        batch, epochs = config["optim"]["batch_size"], config["optim"].get("epochs", 1)
        rows = rows_of(method, case)
        steps = None if rows is None else epochs * math.ceil(rows / batch)
        least = math.ceil(LEAST_ROWS / batch)
    if hours is not None and steps is not None:
        paid = max(least, int(hours * 3600 / step))
        if paid < steps:
            steps = paid
            name = "ppo.updates" if method == "ppo" else "optim.max_steps"
            config = with_settings(config, {name: paid})
    seconds = None if steps is None else steps * step
    return {"config": config, "seconds": seconds, "least_seconds": least * step}


def rows_of(method: str, case: Case) -> int | None:
    """Rows that a method would train on, as far as the case says."""
    if method in ("dpo", "reward"):
        return case.preference_pairs
    if method == "pretrain":
        return None if case.raw_tokens is None else math.ceil(case.raw_tokens / case.example_tokens)
    return case.labelled_examples
