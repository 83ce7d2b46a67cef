"""What a run was begun with, so that every attempt at it goes on with the same.

The first attempt that has loaded what its config names writes attempts/inputs.json; every later one
compares and refuses, naming the difference. Other library versions are told, not refused.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.engine.config import TRL_METHODS, BaseConfig, PPOConfig, from_dict, to_dict
from training.engine.config_answer import OWN_DOCUMENTS
from training.engine.config_judge import NO_BASE
from training.engine.errors import BaseModelError, ConfigError, RunFolderError
from training.engine.files import adapter_digest, sha256_of_file, write_file_once
from training.engine.packaged import PACKAGED
from training.engine.rundir import RunDir
from training.engine.sources import identity_of_base

VERSION = 1


def compare_inputs(run: RunDir) -> None:
    """Hash what the run reads, and compare with what an earlier attempt read.

    A Hub id is loaded at the commit it first resolved to, whatever its branch points at now.
    Raises RunFolderError naming what differs, BaseModelError for a base that is missing.
    """
    path = run.path / "attempts" / "inputs.json"
    before = read_inputs(path) if path.exists() else None
    if before is not None:
        compare_config(before, run)
        compare_files(before["data"], run.data_files())
    config = run.config.base
    pinned = before["base"].get("commit") if before is not None else None
    base = {"source": NO_BASE}  # whose judge answers from elsewhere
    if config.source != NO_BASE:
        base = identity_of_base(replace(config, revision=pinned or config.revision))
    if "commit" in base:
        run.base = replace(config, revision=base["commit"])
    run.inputs = {
        "version": VERSION,
        "config": to_dict(run.config),
        "data": run.data_files(),
        "base": base,
        "adapters": adapters_of(run, before),
        "threads": run.config.threads,
        "machine": machine(),
        "versions": versions(run.config.method),
    }
    if before is not None:
        compare_models(before, run.inputs)
        warn_of_surroundings(before, run)
        run.inputs = before


def record_inputs(run: RunDir) -> None:
    """Write attempts/inputs.json where no attempt has; called before the first step.

    Not earlier: a run that was refused for a wrong row or a missing adapter may be mended.
    """
    path = run.path / "attempts" / "inputs.json"
    text = json.dumps(run.inputs, indent=2, ensure_ascii=False) + "\n"
    if not path.exists() and not write_file_once(path, text):
        compare_inputs(run)  # another attempt was first


def read_inputs(path: Path) -> dict[str, Any]:
    """An inputs.json that this code understands. Raises RunFolderError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made_by = int(found["version"])
        parts = [found[name] for name in ("config", "data", "base", "adapters", "versions")]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("a part is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}): what the run was begun with is no longer known; "
            "start again in a new folder"
        ) from None
    if made_by > VERSION:
        raise RunFolderError(
            f"{path} has format {made_by}, and this code knows up to {VERSION}: the run was begun "
            "by a newer version; go on with that one"
        )
    loaded: dict[str, Any] = found
    return loaded


def compare_config(before: Mapping[str, Any], run: RunDir) -> None:
    try:
        # a field that is new since then has its default, as it had when the run began
        old = flat(to_dict(from_dict(before["config"])))
    except ConfigError as error:
        raise RunFolderError(
            f"{run.path} was begun by another version, whose settings are unknown here: {error}"
        ) from None
    new = flat(to_dict(run.config))
    changed = [
        f"{name} was {shown(old.get(name))} and is {shown(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise RunFolderError(
            f"config.json has changed since the run began: {'; '.join(changed)}. A changed config "
            "needs a new folder"
        )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim.lr": …} of {"optim": {"lr": …}}."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def shown(value: Any) -> str:
    return "null" if value is None else f"{value}"


def compare_files(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if new is None:
            what = f"{name} is gone since the run began"
        elif old is None:
            what = f"{name} is new since the run began"
        else:
            what = f"{name} has changed since the run began (sha256 {short(old)} → {short(new)})"
        raise RunFolderError(f"{what}; put it back, or start the run in a new folder")


def compare_models(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if before["base"] != now["base"]:
        old, new = (" ".join(each.values()) for each in (before["base"], now["base"]))
        raise RunFolderError(
            f"the base has changed since the run began ({old} → {new}); put it back, or start the "
            "run in a new folder"
        )
    for name, digest in now["adapters"].items():
        old = before["adapters"].get(name)
        if old != digest:
            how = f"has changed since the run began (sha256 {short(str(old))} → {short(digest)})"
            what = "the index" if name == "answer.index" else "the adapter"
            raise RunFolderError(
                f"{what} of {name} {how if digest else 'is gone since the run began'}; put it "
                "back, or start the run in a new folder"
            )


def warn_of_surroundings(before: Mapping[str, Any], run: RunDir) -> None:
    """Say where this attempt's bits may differ from the earlier one's."""
    old, new = before["versions"], run.inputs["versions"]
    changed = [
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        run.events.warning(
            "versions_changed",
            f"since the run began: {', '.join(changed)}; its last bits may differ from those of an "
            "uninterrupted run",
        )
    if before.get("machine") != run.inputs["machine"]:
        run.events.warning(
            "machine_changed",
            f"the run began on {before.get('machine')} and goes on on {run.inputs['machine']}; its "
            "last bits may differ from those of an uninterrupted run",
        )


def short(digest: str) -> str:
    return f"{digest[:8]}…"


def versions(method: str) -> dict[str, str]:
    """Of the packages that the method's numbers depend on."""
    packages = ["torch", "transformers", "peft", "bitsandbytes"]
    if method in TRL_METHODS:
        packages += ["trl", "accelerate"]
    return {name: version(name) for name in packages}


def machine() -> str:
    """What the processor can do decides which kernels run, and so the last bits."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def adapters_of(run: RunDir, before: Mapping[str, Any] | None) -> dict[str, str]:
    """The digest of every adapter that the config names, of PPO's reward model and of an index."""
    config = to_dict(run.config)
    named = {
        name: value
        for name, value in flat(config).items()
        if value is not None
        and (name in ("adapter.init_from", "answer.adapter") or name.endswith("_adapter"))
    }
    found = {name: digest_or_nothing(Path(folder)) for name, folder in named.items()}
    answer = run.config.answer
    # of its own documents, whose hash is among those of the data
    if answer is not None and answer.index not in (None, OWN_DOCUMENTS):
        found["answer.index"] = index_digest(Path(str(answer.index)))
    ppo = run.config.ppo
    if ppo is not None and ppo.reward_model is not None:
        earlier = before["adapters"].get("ppo.reward_model") if before is not None else None
        found["ppo.reward_model"] = reward_model_identity(ppo, earlier)
    return found


def reward_model_identity(ppo: PPOConfig, earlier: str | None) -> str:
    """The hash of a reward model's files, or the commit of a Hub id. Raises BaseModelError.

    earlier: what an earlier attempt found; a Hub id is looked up at that commit.
    """
    source = str(ppo.reward_model)
    if source in PACKAGED or source.endswith(".gguf"):
        raise BaseModelError(
            f"ppo.reward_model {source} is no reward model: it is a model that comes with the "
            "engine or a .gguf file, which write text or give states"
        )
    at = ppo.reward_model_revision
    if earlier is not None and not Path(source).expanduser().is_dir():
        at = earlier
    try:
        found = identity_of_base(BaseConfig(source=source, revision=at))
    except BaseModelError as error:
        raise BaseModelError(f"ppo.reward_model: {error}") from error
    return found.get("commit") or found["sha256"]


def index_digest(folder: Path) -> str:
    """Of an index, by its manifest, which names the hash of all else; empty where there is none."""
    try:
        return sha256_of_file(folder / "manifest.json")
    except OSError:
        return ""


def digest_or_nothing(folder: Path) -> str:
    """Empty for a folder that is no adapter: whoever loads it says what is wrong with it."""
    try:
        return adapter_digest(folder)
    except OSError:
        return ""
