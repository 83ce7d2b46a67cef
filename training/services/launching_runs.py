"""Launching one run outside a round: what can be refused is refused before a job exists."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from annotate.export.writers import snapshot_lines
from annotate.models import Project, Snapshot
from rlhf_platform.accounts.models import User, Workspace
from training.engine.advisor_presets import targets
from training.engine.config import from_dict, to_dict
from training.engine.config_answer import CITE, OWN_DOCUMENTS
from training.engine.config_compare import APPROACHES
from training.engine.errors import BaseModelError, ConfigError
from training.errors import CannotLaunch, LaunchKeyReused
from training.models import Job, ModelVersion, Run, TextSet
from training.selectors.plans import version_shape
from training.services import queueing
from training.services.launching import check_key
from training.services.methods import LAUNCHABLE
from training.services.presets import LORA, merged
from training.services.versions import adapter_folder

#: What a run's settings may not name: it is chosen by fields of their own.
CHOSEN = {
    "method": "the method",
    "tuning": "the tuning",
    "threads": "this server",
    "schema": "this server",
}

#: Fields that name something to load.
FOLDERS = ("init_from", "adapter", "index", "encoder", "base", "source")
#: Approaches of a comparison that need no documents.
WITHOUT = ("prompting", "sft")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One run as it was asked for."""

    workspace: Workspace
    method: str
    version: ModelVersion
    snapshot: Snapshot | None = None
    text_set: TextSet | None = None
    documents: TextSet | None = None
    tuning: str = "lora"
    config: Mapping[str, Any]


def launch_run(
    *,
    workspace: Workspace,
    method: str,
    version: ModelVersion,
    snapshot: Snapshot | None = None,
    text_set: TextSet | None = None,
    documents: TextSet | None = None,
    tuning: str = "lora",
    config: Mapping[str, Any] | None = None,
    actor: User | None = None,
    launch_key: str = "",
) -> Run:
    """A queued run of one method. Raises CannotLaunch, saying what to change.

    The same `launch_key` with the same settings gives the run that it launched already; with other
    settings it raises LaunchKeyReused. Without a key every call launches.
    """
    check_key(launch_key)
    asked = Asked(
        workspace=workspace,
        method=method,
        version=version,
        snapshot=snapshot,
        text_set=text_set,
        documents=documents,
        tuning=tuning,
        config=config or {},
    )
    checked = run_config_of(asked)
    earlier = launched_before(launch_key, asked, checked)
    if earlier is not None:
        return earlier
    try:
        with transaction.atomic():
            run = Run.objects.create(
                workspace=workspace,
                method=method,
                snapshot=snapshot,
                text_set=text_set,
                documents=documents,
                config=checked,
                folder=f"runs/{method}-{uuid.uuid4().hex[:12]}",
                version=version,
                created_by=actor,
                launch_key=launch_key,
            )
            queueing.enqueue(
                kind=Job.Kind.RUN, queue=Job.Queue.TRAINING, workspace=workspace, run=run
            )
    except IntegrityError:
        # The same key came at the same moment.
        earlier = launched_before(launch_key, asked, checked)
        if earlier is None:
            raise
        return earlier
    return run


def launched_before(launch_key: str, asked: Asked, checked: Mapping[str, Any]) -> Run | None:
    """The run that this key launched; None for a new key. Raises LaunchKeyReused."""
    if not launch_key:
        return None
    earlier = Run.objects.filter(workspace=asked.workspace, launch_key=launch_key).first()
    if earlier is None:
        return None
    before = (
        earlier.method, earlier.version_id, earlier.snapshot_id, earlier.text_set_id,
        earlier.documents_id, earlier.config,
    )  # fmt: skip
    now = (
        asked.method, asked.version.pk, asked.snapshot.pk if asked.snapshot else None,
        asked.text_set.pk if asked.text_set else None,
        asked.documents.pk if asked.documents else None, json.loads(json.dumps(checked)),
    )  # fmt: skip
    if before != now:
        raise LaunchKeyReused(
            f"the key was used for another launch, that of {earlier}; "
            "make a new key for a launch with other settings"
        )
    return earlier


def run_config_of(asked: Asked) -> dict[str, Any]:
    """The engine's config of what was asked, validated. Raises CannotLaunch."""
    refuse_mismatch(asked)
    refuse_settings(asked.config)
    method, version = asked.method, asked.version
    config = merged(method, dict(asked.config))
    for name in (method, "adapter"):
        if not isinstance(config.get(name) or {}, dict):
            raise CannotLaunch(f"{name} of the settings must be an object")
    dtype = dict(asked.config.get("base") or {})
    config |= {
        "method": method,
        "threads": settings.TRAINING_THREADS,
        "base": {**base_of(asked), **dtype},
    }
    if asked.tuning == "full" and LAUNCHABLE[method].tunings:
        config["tuning"] = "full"
        config.pop("adapter", None)
    elif LAUNCHABLE[method].tunings:
        given = dict(asked.config.get("adapter") or {})
        known = {**LORA, "target_modules": default_targets(version)}
        config["adapter"] = {**known, **given, "init_from": adapter_folder(version)}
    if method == "evaluate":
        role = "reward_adapter" if version.kind == ModelVersion.Kind.REWARD else "policy_adapter"
        config["evaluate"] = {**config.get("evaluate", {}), role: adapter_folder(version)}
    elif method == "answer":
        config["answer"] = answer_section(asked, config["answer"])
    elif method == "compare":
        config["compare"] = compare_section(asked, config["compare"])
    try:
        return to_dict(from_dict(config))
    except ConfigError as error:
        raise CannotLaunch(str(error)) from error


def answer_section(asked: Asked, given: dict[str, Any]) -> dict[str, Any]:
    """How the questions are answered: by the version, from documents where there are some."""
    assert asked.text_set is not None  # noqa: S101 - refused before
    section = {"task": asked.text_set.figures["task"], **given}
    section["adapter"] = adapter_folder(asked.version)
    if asked.documents is None:
        return section
    prompt = section.get("prompt")
    prompt = dict(prompt) if isinstance(prompt, dict) else {}
    user = str(prompt.get("user", "{question}"))
    prompt["user"] = user if "{passages}" in user else CITE + user
    return {**section, "index": OWN_DOCUMENTS, "prompt": prompt}


def compare_section(asked: Asked, given: dict[str, Any]) -> dict[str, Any]:
    """Which approaches are tried: all that the data allows, unless the settings name some."""
    assert asked.text_set is not None  # noqa: S101 - refused before
    answer = given.get("answer")
    answer = {
        "task": asked.text_set.figures["task"],
        **(answer if isinstance(answer, dict) else {}),
    }
    possible = [name for name in APPROACHES if asked.documents is not None or name in WITHOUT]
    named = {"name": str(asked.text_set), "approaches": possible}
    return {**named, **given, "answer": answer}


def default_targets(version: ModelVersion) -> list[str]:
    """The layers that an adapter is put on where nobody names any.

    An encoder's are called otherwise than those of a model that writes text.
    """
    try:
        shape = version_shape(version)
    except BaseModelError:
        return list(LORA["target_modules"])  # it is elsewhere; the engine says if it has none
    return list(LORA["target_modules"]) if shape.decoder else targets(shape)


def base_of(asked: Asked) -> dict[str, Any]:
    """The base as it is held: an adapter stays on the base that it was trained on."""
    base = dict(asked.version.base)
    if not LAUNCHABLE[asked.method].tunings or asked.version.adapter_path:
        return base
    return base | {"quantization": "nf4" if asked.tuning == "qlora" else "none"}


def refuse_mismatch(asked: Asked) -> None:
    """Raise CannotLaunch where method, data, version and tuning do not go together."""
    method, version = asked.method, asked.version
    if method not in LAUNCHABLE:
        raise CannotLaunch(
            f"method {method!r} is none of {', '.join(LAUNCHABLE)}; the others run in a round"
        )
    kind = LAUNCHABLE[method]
    for name, thing in (
        ("version", version), ("snapshot", asked.snapshot), ("text set", asked.text_set),
        ("documents", asked.documents),
    ):  # fmt: skip
        if thing is not None and thing.workspace_id != asked.workspace.pk:
            raise CannotLaunch(f"the {name} chosen is of another workspace")
    for name, thing, wanted in (
        ("snapshot", asked.snapshot, kind.kind), ("text set", asked.text_set, kind.texts),
        ("documents", asked.documents, kind.looks_up),
    ):  # fmt: skip
        if thing is not None and not wanted:
            raise CannotLaunch(f"{method} reads no {name}; leave that out")
    if asked.snapshot is None and asked.text_set is None:
        raise CannotLaunch(f"{method} needs {' or '.join(kind.reads)}; choose one")
    if asked.snapshot is not None and asked.text_set is not None:
        raise CannotLaunch(f"{method} reads {' or '.join(kind.reads)}; leave one of the two out")
    if asked.text_set is not None:
        refuse_texts(asked, asked.text_set)
    if asked.snapshot is not None:
        refuse_snapshot(method, asked.snapshot)
    if method == "evaluate":
        refuse_unmeasured(version)
        return
    if not version.writes:
        raise CannotLaunch(
            f"{version} is a {version.get_kind_display().lower()}; {method} starts from a base or "
            "from a version that writes text"
        )
    if method == "compare" and version.adapter_path:
        raise CannotLaunch(
            f"{version} is an adapter, and compare tries every approach on one base; choose a base "
            "or a model that was trained whole"
        )
    if not kind.tunings:
        return
    if asked.tuning not in kind.tunings:
        raise CannotLaunch(f"tuning {asked.tuning!r} is none of {', '.join(kind.tunings)}")
    if version.adapter_path:
        refuse_on_adapter(asked)


def refuse_texts(asked: Asked, text_set: TextSet) -> None:
    """Raise CannotLaunch for texts of another kind, or too few to measure on."""
    method, kind = asked.method, LAUNCHABLE[asked.method]
    if text_set.kind != kind.texts:
        wanted = TextSet.Kind(kind.texts).label.lower()
        raise CannotLaunch(
            f"{text_set} holds {text_set.get_kind_display().lower()}; {method} needs {wanted}"
        )
    if text_set.kind == TextSet.Kind.QUESTIONS and not text_set.n_held_out:
        raise CannotLaunch(
            f"{text_set} holds no question out, and only these are asked; import it with a share"
        )
    documents = asked.documents
    if documents is not None and documents.kind != TextSet.Kind.DOCUMENTS:
        raise CannotLaunch(
            f"{documents} holds {documents.get_kind_display().lower()}; what is looked up in are "
            "documents"
        )


def refuse_snapshot(method: str, snapshot: Snapshot) -> None:
    """Raise CannotLaunch for rows that the method cannot read or measure on."""
    kind = LAUNCHABLE[method].kind
    if snapshot.project.kind != kind:
        has = "labels" if snapshot.project.kind == Project.Kind.LABELS else "compared answers"
        needs = "labels" if kind == Project.Kind.LABELS else "compared answers"
        raise CannotLaunch(f"{snapshot} holds {has}; {method} needs a snapshot of {needs}")
    if method == "evaluate" and not snapshot.n_test:
        raise CannotLaunch(f"{snapshot} holds no rows out, so there is nothing to measure on")
    if method == "classify":
        refuse_labels(snapshot)


def refuse_labels(snapshot: Snapshot) -> None:
    """Raise CannotLaunch for one class only, or held-out labels that no training row has."""
    of = {
        split: {
            json.loads(line)["label"] for line in snapshot_lines(snapshot=snapshot, split=split)
        }
        for split in ("train", "test")
    }
    if len(of["train"]) < 2:
        raise CannotLaunch(
            f"all training rows of {snapshot} have one label ({', '.join(of['train']) or 'none'}): "
            "there is nothing to tell apart; freeze one with two labels or more"
        )
    unseen = sorted(of["test"] - of["train"])
    if unseen:
        raise CannotLaunch(
            f"{len(unseen)} labels of the held-out rows of {snapshot} are in no training row "
            f"({', '.join(unseen[:5])}): they could never be predicted; freeze another snapshot"
        )


def refuse_unmeasured(version: ModelVersion) -> None:
    """Raise CannotLaunch for what `evaluate` has no measure of: it compares adapters."""
    if version.kind == ModelVersion.Kind.CLASSIFIER:
        raise CannotLaunch(
            f"{version} is a classifier: its run measured it on held-out rows already"
        )
    if not version.adapter_path:
        raise CannotLaunch(
            f"{version} has no adapter; an evaluation measures what an adapter changed"
        )


def refuse_on_adapter(asked: Asked) -> None:
    """Raise CannotLaunch where an adapter that goes on would lie on another base."""
    held = asked.version.base.get("quantization", "none")
    if asked.tuning == "full":
        raise CannotLaunch(
            f"{asked.version} is an adapter: full tuning trains a base's own weights. Choose LoRA "
            "to go on with it, or merge it first (python -m training.engine merge)"
        )
    if (asked.tuning == "qlora") != (held != "none"):
        instead = "qlora" if held != "none" else "lora"
        raise CannotLaunch(
            f"{asked.version} was trained on its base with quantization {held}, and goes on there: "
            f"choose tuning {instead}"
        )


def refuse_settings(config: Mapping[str, Any]) -> None:
    """Raise CannotLaunch for settings that are chosen elsewhere, or that name a folder to load.

    A folder in a config would be read with the worker's rights, and could be another workspace's.
    """
    for name, by in CHOSEN.items():
        if name in config:
            raise CannotLaunch(f"{name} is set by {by}; leave it out of the settings")
    base = config.get("base", {})
    if not isinstance(base, dict) or set(base) - {"dtype", "double_quant"}:
        raise CannotLaunch("of base the settings may hold dtype and double_quant alone")
    for section in (value for name, value in config.items() if name not in ("base", "adapter")):
        refuse_folders(section)
    if "init_from" in (config.get("adapter") or {}):
        raise CannotLaunch("init_from is set by the version; leave it out of the settings")


def refuse_folders(part: Any) -> None:
    """Raise CannotLaunch for a field that names something to load, however deep it stands."""
    if not isinstance(part, dict):
        return
    for name, value in part.items():
        if name in FOLDERS or name.endswith("_adapter"):
            if name in ("index", "adapter") and isinstance(value, dict):
                refuse_folders(value)  # of a stage of compare: how it is made
                continue
            raise CannotLaunch(f"{name} is set by the version and documents chosen; leave it out")
        refuse_folders(value)
