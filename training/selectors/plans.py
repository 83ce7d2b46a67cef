"""What runs will need before they are launched, as pages and the API show it.

The arithmetic is the engine's (`training.engine.planner`, no torch). Here a base is found by a
version of the workspace or by the text of its config.json; nobody's words open a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.advisor_presets import targets
from training.engine.config import RunConfig, from_dict
from training.engine.errors import BaseModelError, ConfigError, EngineError
from training.engine.packaged import PACKAGED
from training.engine.planner import Lengths, Plan, any_section, plan, with_settings
from training.engine.planner_memory import Term
from training.engine.planner_shapes import BaseShape, packaged_shape, read_shape, shape_of
from training.errors import TrainingError
from training.models import ModelVersion, Round
from training.selectors.calibrations import Factor, memory_factor
from training.services import rounds

#: Parameters that no model has; beyond them numbers would only overflow.
MOST_PARAMETERS = 10**15
GB = 10**9
#: Width of the picture of a plan's parts, in the units of its viewBox.
WIDTH = 1000
#: Devices that people name: (title, kind, memory in GB). Of a processor: what is free beside the
#: libraries.
PRESETS: dict[str, tuple[str, str, int]] = {
    "gpu-8": ("GPU, 8 GB (RTX 4060)", "gpu", 8),
    "gpu-16": ("GPU, 16 GB (T4)", "gpu", 16),
    "gpu-24": ("GPU, 24 GB (RTX 4090, L4, A10)", "gpu", 24),
    "gpu-48": ("GPU, 48 GB (L40S, RTX A6000)", "gpu", 48),
    "gpu-80": ("GPU, 80 GB (A100, H100)", "gpu", 80),
    "gpu-141": ("GPU, 141 GB (H200)", "gpu", 141),
    "cpu-4": ("Processor, 4 GB free", "cpu", 4),
    "cpu-8": ("Processor, 8 GB free", "cpu", 8),
    "cpu-16": ("Processor, 16 GB free", "cpu", 16),
    "cpu-32": ("Processor, 32 GB free", "cpu", 32),
}
DEFAULT_PRESET = "cpu-8"


@dataclass(frozen=True)
class Part:
    """One term of a plan and its place in the stacked bar."""

    term: Term
    number: int
    x: int
    width: int


@dataclass(frozen=True)
class Planned:
    """The plan of one run, or the sentence that says why there is none."""

    name: str
    plan: Plan | None = None
    refused: str = ""
    #: What the plan was multiplied by, where earlier runs say so.
    factor: Factor | None = None

    @property
    def scale(self) -> int:
        """Bytes of the whole picture: the device's, or the run's where that is more."""
        assert self.plan is not None  # noqa: S101 - asked of what was planned
        return max(self.plan.total_bytes, self.plan.device_bytes or 0, 1)

    @property
    def parts(self) -> list[Part]:
        if self.plan is None:
            return []
        found, before = [], 0
        for number, term in enumerate(self.plan.terms):
            x, end = (WIDTH * each // self.scale for each in (before, before + term.bytes))
            found.append(Part(term, number % 8, x, end - x))
            before += term.bytes
        return found

    @property
    def device_end(self) -> int | None:
        """Where the device's memory ends in the picture; None where it is the picture's end."""
        if self.plan is None or self.plan.device_bytes is None:
            return None
        end = WIDTH * self.plan.device_bytes // self.scale
        return end if end < WIDTH else None

    @property
    def over_bytes(self) -> int:
        """How much is missing; negative where it fits."""
        if self.plan is None or self.plan.device_bytes is None:
            return 0
        return self.plan.total_bytes - self.plan.device_bytes

    @property
    def spare_bytes(self) -> int:
        return -self.over_bytes

    @property
    def least_bytes(self) -> int:
        """The least that any tried setting needs."""
        assert self.plan is not None  # noqa: S101 - asked of what was planned
        return min((each.total_bytes for each in self.plan.tried), default=self.plan.total_bytes)


def version_shape(version: ModelVersion) -> BaseShape:
    """The shape of a version's base. Raises BaseModelError where it is not on this machine.

    A folder is read because an admin registered it here; a Hub id is not looked up.
    """
    source = str(version.base.get("source", ""))
    if source in PACKAGED:
        return packaged_shape(source)
    if source.startswith("/") and not source.endswith(".gguf"):
        return read_shape(Path(source))
    raise BaseModelError(
        f"the base {source} is not on this machine as a folder, and nothing is downloaded to plan: "
        "paste its config.json"
    )


def said_shape(base_config: Mapping[str, Any]) -> BaseShape:
    """The shape that the content of a config.json describes. Raises BaseModelError."""
    shape = shape_of(base_config, "base_config")
    if shape.parameters > MOST_PARAMETERS:
        raise BaseModelError("base_config: no model has so many parameters; check its sizes")
    return shape


def run_config(
    method: str,
    settings: Mapping[str, Any],
    *,
    base: Mapping[str, Any] | None = None,
    shape: BaseShape | None = None,
) -> RunConfig:
    """A run's config for planning: the method's defaults with these settings.

    shape: the base's, whose layers an adapter is put on where the settings name none. Adapters that
    only an earlier run could give are named by a stand-in, which is never opened. Raises
    ConfigError.
    """
    # "demo" is only a name here: the shape is given beside it
    source = {"source": "demo", **(base or {})}
    data: dict[str, Any] = {"method": method, "base": source, **any_section(method)}
    if shape is not None and not shape.decoder and settings.get("tuning") != "full":
        data["adapter"] = {"target_modules": targets(shape)}
    return from_dict(overlaid(data, settings))


def overlaid(data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """data with nested (or dotted) settings over it, section by section."""
    flat: dict[str, Any] = {}

    def flatten(section: Mapping[str, Any], prefix: str) -> None:
        for name, value in section.items():
            if isinstance(value, Mapping) and value:
                flatten(value, f"{prefix}{name}.")
            else:
                flat[f"{prefix}{name}"] = value

    flatten(settings, "")
    return with_settings(data, flat)


def planned(
    name: str,
    config: RunConfig,
    shape: BaseShape,
    *,
    device: str = "gpu",
    device_bytes: int | None = None,
    lengths: Lengths | None = None,
    flops_per_s: float | None = None,
    bytes_per_s: float | None = None,
    factor: Factor | None = None,
) -> Planned:
    """The plan of a run, or why the planner will not have it."""
    try:
        found = plan(
            config,
            shape,
            device_bytes,
            lengths=lengths,
            device=device,
            flops_per_s=flops_per_s,
            bytes_per_s=bytes_per_s,
            factor=factor.factor if factor is not None else 1.0,
        )
    except EngineError as error:
        return Planned(name, refused=str(error))
    return Planned(name, found, factor=factor)


def preset_device(name: str) -> tuple[str, int]:
    """(kind, bytes) of a device people name; the default where nobody knows the name."""
    _, kind, gigabytes = PRESETS.get(name, PRESETS[DEFAULT_PRESET])
    return kind, gigabytes * GB


def round_plans(
    round: Round,
    *,
    device: str,
    device_bytes: int | None,
    base_config: Mapping[str, Any] | None = None,
) -> list[Planned]:
    """A plan for each stage of a round that may not be stored yet, in order.

    The texts are taken as long as the settings allow, and as many as the snapshot has.
    base_config: the base's config.json, where the base is not on this machine.
    """
    try:
        shape = said_shape(base_config) if base_config else version_shape(round.reference)
    except EngineError as error:
        return [Planned("round", refused=str(error))]
    found = []
    for stage in rounds.plan(round):
        name = stage.replace("_", " ")
        try:
            config = from_dict(rounds.stage_config(round, stage, rehearsal=True))
        except (TrainingError, ConfigError) as error:
            found.append(Planned(name, refused=str(error)))
            continue
        found.append(
            planned(
                name,
                config,
                shape,
                device=device,
                device_bytes=device_bytes,
                lengths=Lengths(rows=round.snapshot.n_train),
                factor=memory_factor(
                    workspace=round.project.workspace, method=config.method, device=device
                ),
            )
        )
    return found
