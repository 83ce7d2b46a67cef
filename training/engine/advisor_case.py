"""What the advisor is told about a case: checked, and read from JSON without opening any file.

Everything but the task may be unknown (None): then it counts for no option, and the advice says
whether knowing it could change the first place. No torch is imported.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from training.engine.config_trl import check
from training.engine.errors import ConfigError
from training.engine.packaged import BASES, PACKAGED
from training.engine.planner_shapes import BaseShape, packaged_shape, shape_of

TASKS = {
    "classification": "one of several labels for a text",
    "extraction": "fields out of a text, in a given form",
    "style": "a tone, a format or a way of writing",
    "knowledge": "questions about facts that the base does not know, or not reliably",
    "preference": "which of several good answers people like, and what they want refused",
    "generation": "open writing: summaries, drafts, conversation",
}
#: How far the texts are from general ones, in words; a measurement gives a number (`domain`).
DOMAIN_WORDS = {"same": 0.0, "near": 0.33, "far": 0.67, "very_different": 1.0}
#: How often what the answers rest on changes, and how far that is from never to always.
CHANGES = {"never": 0.0, "yearly": 0.25, "monthly": 0.5, "weekly": 0.75, "daily": 1.0}
#: How much the form of the answers matters.
FORMATS = {"no": 0.0, "some": 0.5, "strict": 1.0}
DEVICES = ("gpu", "cpu")
#: Bounds of counts: a number beyond them is a slip of the pen.
MOST = 10**15


@dataclass(frozen=True, kw_only=True)
class Case:
    """One adaptation that somebody considers. None: not known."""

    task: str
    """classification, extraction, style, knowledge, preference or generation."""
    domain_distance: float | None = None
    """0 (like general text) to 1 (nothing like it); in JSON also one of DOMAIN_WORDS."""
    domain_measured: bool = False
    """Whether the distance was measured on texts (`domain.measure`) rather than said."""
    knowledge_changes: str | None = None
    """never, yearly, monthly, weekly or daily."""
    consistent_format: str | None = None
    """no, some or strict: how much the answers have to share one form or style."""
    labelled_examples: int | None = None
    """Inputs with the answer or label that is wanted."""
    preference_pairs: int | None = None
    """Prompts with a chosen and a rejected answer."""
    raw_tokens: int | None = None
    """Tokens of the domain's own texts or documents, without labels."""
    private: bool | None = None
    """Whether the data may not leave the house."""
    model_in_house: bool = True
    """Whether the model's weights can be had and run in the house (an open model)."""
    device: str = "gpu"
    """gpu or cpu."""
    device_bytes: int | None = None
    """Memory of the device; of a processor what is free beside the libraries."""
    device_tflops: float | None = None
    """10¹² operations a second that the device really does; needed for the budget."""
    budget_hours: float | None = None
    """Hours of that device that training may take."""
    example_tokens: int = 256
    """Tokens of an example, prompt and answer together, on average."""
    base: str = "demo"
    """The base as a run names it: demo, minilm, a Hub id, a folder or a .gguf file."""
    shape: BaseShape | None = None
    """What the base is made of; without it nothing can be planned."""

    def __post_init__(self) -> None:
        check(self.task in TASKS, "task", self.task, ", ".join(TASKS))
        within = self.domain_distance is None or 0.0 <= self.domain_distance <= 1.0
        check(within, "domain_distance", self.domain_distance, "0 to 1")
        check(
            not self.domain_measured or self.domain_distance is not None,
            "domain_measured",
            self.domain_measured,
            "false without domain_distance",
        )
        for name, levels in (("knowledge_changes", CHANGES), ("consistent_format", FORMATS)):
            value = getattr(self, name)
            check(value is None or value in levels, name, value, ", ".join(levels))
        for name in ("labelled_examples", "preference_pairs", "raw_tokens"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= MOST, name, value, f"0 to {MOST:,}")
        least = {"device_bytes": 1, "device_tflops": 1e-6, "budget_hours": 1e-6}
        for name, bound in least.items():
            value = getattr(self, name)
            allowed = f"{bound:g} to {MOST:,}, or left out"
            check(value is None or bound <= value <= MOST, name, value, allowed)
        check(1 <= self.example_tokens <= 10**6, "example_tokens", self.example_tokens, "1 to 10⁶")
        check(self.device in DEVICES, "device", self.device, ", ".join(DEVICES))
        if self.shape is not None:
            # counts that no model has would only overflow further on
            size = self.shape.parameters
            check(size <= MOST, "the base's parameter count", "too large", f"up to {MOST:,}")
        check(bool(self.base), "base", self.base, BASES)

    def as_json(self) -> dict[str, Any]:
        """What `case_from_dict` reads, but for the base's shape, of which only the size is said."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        shape = found.pop("shape")
        return found | {"base_parameters": None if shape is None else shape.parameters}


#: Fields of the JSON that are not fields of Case under the same name.
OWN = ("base_config", "device_gb")


def case_from_dict(data: Any, shape: BaseShape | None = None) -> Case:
    """A Case from parsed JSON, its fields by name; `device_gb` may stand for `device_bytes`.

    `base_config` is the content of the base's config.json, `base` the name that presets get. No
    file is opened, whatever the JSON says: a service may pass on what a stranger sent. `shape` is
    that of a base which the caller has read itself.
    Raises ConfigError naming what is wrong, BaseModelError for an unknown architecture.
    """
    if not isinstance(data, Mapping):
        raise ConfigError("a case must be one JSON object")
    known = {item.name for item in fields(Case)} - {"shape"}
    unknown = sorted(str(name) for name in set(data) - known - set(OWN))
    if unknown:
        raise ConfigError(
            f"the case has unknown fields: {', '.join(unknown)}; known: "
            f"{', '.join(sorted([*known, *OWN]))}"
        )
    if "task" not in data:
        raise ConfigError(f"the case names no task; allowed: {', '.join(TASKS)}")
    hints = typing.get_type_hints(Case)
    values = {
        name: converted(hints[name], value, name)
        for name, value in data.items()
        if name in known and value is not None
    }
    if data.get("device_gb") is not None:
        gigabytes = converted(float, data["device_gb"], "device_gb")
        check(
            data.get("device_bytes") is None, "device_gb", gigabytes, "one of it and device_bytes"
        )
        check(0 < gigabytes <= MOST / 1e9, "device_gb", gigabytes, "above 0")
        values["device_bytes"] = int(gigabytes * 1e9)
    return Case(**values, shape=shape or said_shape(data))


def said_shape(data: Mapping[str, Any]) -> BaseShape | None:
    """The shape by `base_config`, or of a packaged model where that is the base."""
    given = data.get("base_config")
    if given is not None:
        if not isinstance(given, Mapping):
            raise ConfigError("base_config must be the object that a model's config.json holds")
        return shape_of(given, "base_config")
    named = data.get("base", "demo")
    return packaged_shape(named) if isinstance(named, str) and named in PACKAGED else None


def converted(hint: Any, value: Any, name: str) -> Any:
    """`value` as a field's annotation says. Raises ConfigError."""
    if name == "domain_distance" and isinstance(value, str):
        check(value in DOMAIN_WORDS, name, value, f"0 to 1, {', '.join(DOMAIN_WORDS)}")
        return DOMAIN_WORDS[value]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    wanted = next(option for option in options if option is not types.NoneType)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        check(abs(value) <= MOST, name, value, f"up to {MOST:,}")
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}; it must be of type {wanted.__name__}")
    return value
