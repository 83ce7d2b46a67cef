"""What a workspace can do with an advice: where each of its runs starts, and with which settings.

The advisor (`training.engine.advisor`) names bases and folders as the engine does. Here they become
versions of the workspace, a base that is still to be registered, or a step that has to end first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_platform.accounts.models import Workspace
from training.engine.advisor import Advice, advise
from training.engine.advisor_case import case_from_dict
from training.engine.advisor_presets import ENCODER, ENCODER_CONFIG, Stage
from training.engine.packaged import PACKAGED
from training.models import ModelVersion
from training.selectors.plans import version_shape
from training.services.methods import LAUNCHABLE
from training.services.versions import HUB_ID, registered_base

#: What a launch asks for in fields of its own, or the server sets.
ELSEWHERE = ("method", "tuning", "threads", "schema", "seed")
#: What a launch may say of the base; its source is the version's, its quantization the tuning's.
OF_BASE = ("dtype", "double_quant")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of an advice."""

    stage: Stage
    #: What its weights start from, where the workspace has it.
    version: ModelVersion | None
    #: The base to register for it, where the workspace has none of that name yet.
    base: str
    #: The method of the earlier step that makes what this one starts from; empty: none does.
    after: str

    @property
    def tuning(self) -> str:
        return tuning_of(self.stage.config)

    @property
    def settings(self) -> str:
        return settings_of(self.stage.config)

    def plan(self, base_config: dict[str, Any]) -> dict[str, Any]:
        """What fills in the planner's form. base_config: of the case's base, {} where not pasted.

        A step that starts from what an earlier one makes is planned on that one's base.
        """
        if self.stage.config["base"]["source"] == ENCODER:
            base_config = ENCODER_CONFIG
        return {
            "method": self.stage.method,
            "settings": planned_settings_of(self.stage.config),
            "version": self.version.pk if self.version is not None else "",
            "base": self.base if self.base in PACKAGED else "",
            "base_config": json.dumps(base_config) if base_config else "",
        }

    @property
    def alone(self) -> bool:
        """Whether it is launched by itself, not in a round."""
        return self.stage.method in LAUNCHABLE

    @property
    def asked(self) -> dict[str, Any]:
        """What fills in the launch form."""
        start: dict[str, Any] = {"base": self.base} if self.base else {}
        if self.version is not None:
            start = {"version": self.version.pk}
        said = {"method": self.stage.method, "tuning": self.tuning, "settings": self.settings}
        return said | start | ({"after": self.after} if self.after else {})


def advise_on(
    case: Mapping[str, Any], *, version: ModelVersion | None, distance: Mapping[str, Any] | None
) -> Advice:
    """The advice on a case, which a version of the workspace and a measured distance complete.

    A pasted base_config stands before the version's own shape. Raises EngineError naming what is
    wrong with the case or its base.
    """
    asked = dict(case)
    if distance is not None:
        asked |= {"domain_distance": distance["distance"], "domain_measured": True}
    shape = None
    if version is not None and asked.get("base_config") is None:
        shape = version_shape(version)
    return advise(case_from_dict(asked, shape=shape))


def steps_of(found: Advice, *, workspace: Workspace, version: ModelVersion | None) -> list[Step]:
    """The runs of the first option, in order. version: the base that the case was asked with."""
    if found.first is None:
        return []
    # A preset may ask for an adapter to be merged first; a launch goes on with it as it is.
    made: dict[str, Step] = {}
    for stage in found.first.stages:
        source, begins = str(stage.config["base"]["source"]), begins_with(stage.config)
        earlier = next((each for name, each in made.items() if begins.startswith(f"{name}/")), None)
        if earlier is not None:
            start, base, after = earlier.version, earlier.base, earlier.stage.method
        else:
            same = version is not None and version.base.get("source") == source
            start = version if same else registered_base(workspace=workspace, source=source)
            known = source in PACKAGED or HUB_ID.fullmatch(source)
            base, after = source if start is None and known else "", ""
        made[stage.name] = Step(stage=stage, version=start, base=base, after=after)
    return list(made.values())


def begins_with(config: dict[str, Any]) -> str:
    """The folder of an earlier stage that a preset starts from, or its base's name."""
    adapter = config.get("adapter", {}).get("init_from")
    return str(adapter or config["base"]["source"])


def settings_of(config: dict[str, Any]) -> str:
    """A preset's config as the settings field of a launch takes it."""
    left = {name: value for name, value in config.items() if name not in ELSEWHERE}
    left["base"] = {name: left["base"][name] for name in OF_BASE if name in left.get("base", {})}
    return as_settings(left)


def planned_settings_of(config: dict[str, Any]) -> str:
    """The same for a plan, which asks only for method and base: how that is held goes along."""
    left = {name: value for name, value in config.items() if name != "method"}
    left["base"] = {k: v for k, v in left["base"].items() if k not in ("source", "revision")}
    return as_settings(left)


def as_settings(config: dict[str, Any]) -> str:
    """JSON without empty sections, and without folders of runs that are still to be launched."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k != "init_from" and k[-8:] != "_adapter"}
        if value != {}:
            found[name] = value
    return json.dumps(found)


def tuning_of(config: dict[str, Any]) -> str:
    if config.get("tuning") == "full":
        return "full"
    return "qlora" if config.get("base", {}).get("quantization") == "nf4" else "lora"


def made_by(*, method: str, start: ModelVersion) -> ModelVersion | None:
    """The newest version that a run of this method made of another."""
    found = ModelVersion.objects.filter(
        workspace=start.workspace_id, run__method=method, parent=start
    )
    return found.order_by("-pk").first()
