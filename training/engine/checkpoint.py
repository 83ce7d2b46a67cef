"""Checkpoints: safetensors and JSON under a manifest, written beside and renamed.

A checkpoint exists when its folder has its final name; it is used when it holds exactly the files
of its manifest, each with its size and hash. Resuming takes the newest that verifies and says which
it skipped. Nothing in a checkpoint can run code: what looks like a pickle is refused by name before
a loader sees it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.engine.files import (
    cannot_write,
    publish_folder,
    require_space,
    sha256_of_file,
    write_file,
)
from training.engine.rundir import RunDir
from training.engine.sources import PICKLES

VERSION = 2
#: What a checkpoint holds beside its manifest.
FILES = ("tensors.safetensors", "state.json")
#: First bytes of a zip (torch.save) and of pickle protocols 2 to 5.
ZIP, PICKLE = b"PK\x03\x04", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
#: Room for the JSON files of a checkpoint and for what else writes to the disk meanwhile.
SPARE_BYTES = 16_000_000


def random_state() -> dict[str, Tensor]:
    """The state of every generator that training draws from: torch's, on each device.

    Python's and numpy's are not drawn from: orders, answers and intervals have generators of their
    own, made anew from the config's seed.
    """
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda.{i}": each for i, each in enumerate(torch.cuda.get_rng_state_all())}
    return state


@dataclass(frozen=True)
class Checkpoint:
    """What a loop needs to go on: tensors by name, plain JSON state, random generators."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    random: dict[str, Tensor] = field(default_factory=random_state)


def set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{index}"], index)


def save_checkpoint(run: RunDir, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint of this attempt and announce it. Raises OutOfSpaceError."""
    folder = run.attempt_path / "checkpoints"
    final = folder / f"step-{checkpoint.step:08d}"
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    tensors |= {f"rng/{name}": state for name, state in checkpoint.random.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    beside = folder / f".{final.name}.{secrets.token_hex(4)}"
    try:
        beside.mkdir(parents=True)
        require_space(folder, size + SPARE_BYTES, f"the checkpoint of step {checkpoint.step}")
        if final.exists():  # this attempt was started twice under one name
            if not what_is_wrong(run, final):
                return final
            shutil.rmtree(final)
        save_file(tensors, beside / "tensors.safetensors")
        write_file(beside / "state.json", json.dumps(checkpoint.state))
        manifest = {
            "version": VERSION,
            "attempt": run.attempt,
            "step": checkpoint.step,
            "config_sha256": run.config_sha256,
            **identity(run),
            "versions": run.inputs.get("versions", {}),
            "files": {name: facts_of_file(beside / name) for name in FILES},
        }
        manifest["seal"] = seal(manifest)
        write_file(beside / "manifest.json", json.dumps(manifest, indent=2))
        run.events.sync()  # the curve up to this step must not be lost when the step is not
        publish_folder(beside, final)
    except (OSError, SafetensorError) as error:
        raise cannot_write(final, error, size) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    run.events.write(
        "checkpoint",
        step=checkpoint.step,
        path=run.name_of(final),
        sha256=sha256_of_file(final / "manifest.json"),
        bytes=sum(path.stat().st_size for path in final.iterdir()),
    )
    drop_old(run)
    return final


def identity(run: RunDir) -> dict[str, str]:
    """What a checkpoint's run was begun with: it fits no other."""
    inputs = run.path / "attempts" / "inputs.json"
    return {
        "data_sha256": run.data_sha256(),
        "inputs_sha256": sha256_of_file(inputs) if inputs.exists() else "",
    }


def seal(manifest: dict[str, Any]) -> str:
    """SHA-256 over a manifest's other fields: against a damaged disk, not against a forger."""
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def facts_of_file(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}


def drop_old(run: RunDir) -> None:
    """Delete this attempt's checkpoints beyond the newest `checkpoint_keep`; no other attempt's."""
    keep = run.config.checkpoint_keep
    own = sorted((run.attempt_path / "checkpoints").glob("step-*"))
    for old in own[:-keep] if keep else []:
        dropped = old.with_name(f".{old.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            old.replace(dropped)  # a kill while files go must not leave half a checkpoint
            shutil.rmtree(dropped)
            run.events.write(
                "checkpoint_removed",
                step=int(old.name.removeprefix("step-")),
                path=run.name_of(old),
            )


def newest_checkpoint(run: RunDir) -> Checkpoint | None:
    """The newest checkpoint of any attempt that verifies; sets the random generators to it."""
    for folder in run.checkpoints():
        problem = what_is_wrong(run, folder)
        if problem:
            run.events.warning("checkpoint_skipped", f"{run.name_of(folder)}: {problem}")
            continue
        tensors = {
            # copied: the loader's memory is the file's, and the file may be deleted
            name: tensor.clone()
            for name, tensor in load_file(folder / "tensors.safetensors").items()
        }
        random = {
            name.removeprefix("rng/"): tensors.pop(name)
            for name in [name for name in tensors if name.startswith("rng/")]
        }
        set_random_state(random)
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(int(folder.name.removeprefix("step-")), tensors, state, random)
    return None


def what_is_wrong(run: RunDir, folder: Path) -> str:
    """Why a checkpoint may not be used; empty when it may."""
    try:
        found = sorted(folder.iterdir())
        for path in found:
            if looks_pickled(path):
                return f"{path.name} looks like a pickle, which could run code: it was not opened"
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            return f"written by another version ({manifest['version']})"
        if manifest["seal"] != seal(manifest):
            return "manifest.json has changed since it was written"
        for name, own in identity(run).items():
            if manifest[name] != own:
                return f"made from other {name.removesuffix('_sha256')}"
        if f"step-{manifest['step']:08d}" != folder.name:
            return f"its manifest is of step {manifest['step']}"
        extra = {path.name for path in found} ^ {"manifest.json", *FILES}
        if extra or set(manifest["files"]) != set(FILES):
            return f"holds other files than its manifest says ({', '.join(sorted(extra))})"
        for name in FILES:
            size, promised = (folder / name).stat().st_size, manifest["files"][name]
            if size != promised["bytes"]:
                return f"{name} has {size} bytes instead of {promised['bytes']}"
            if sha256_of_file(folder / name) != promised["sha256"]:
                return f"{name} has changed since it was written"
    except (OSError, KeyError, TypeError, ValueError) as error:
        return f"cannot be read ({error})"
    return ""


def looks_pickled(path: Path) -> bool:
    """By its name or its first bytes; a link or folder, which no checkpoint holds, counts too."""
    if path.suffix in PICKLES or path.is_symlink() or not path.is_file():
        return True
    with path.open("rb") as handle:
        head = handle.read(9)
    # the length that begins a safetensors file may spell a pickle's first two bytes; its header
    # then still opens with a brace
    safe = path.suffix == ".safetensors" and head[8:] == b"{"
    return head.startswith(ZIP) or (head.startswith(PICKLE) and not safe)
