"""Checkpoints: safetensors and JSON under a manifest, written beside and renamed.

A checkpoint exists when its folder has its final name; it is used when every file still has the
hash its manifest says. Resuming takes the newest that verifies and says which it skipped.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.engine.rundir import RunDir, publish_folder, require_space, sha256_of_file, write_file

VERSION = 1
#: What a checkpoint holds beside its manifest.
FILES = ("tensors.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What a loop needs to go on: tensors by name and plain JSON state."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(run: RunDir, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint of this attempt and announce it. Raises OutOfSpaceError."""
    folder = run.attempt_path / "checkpoints"
    folder.mkdir(exist_ok=True)
    size = sum(t.numel() * t.element_size() for t in checkpoint.tensors.values())
    require_space(folder, 2 * size + 16_000_000, f"the checkpoint of step {checkpoint.step}")
    final = folder / f"step-{checkpoint.step:08d}"
    if final.exists():  # this attempt was started twice under one name
        if not what_is_wrong(run, final):
            return final
        shutil.rmtree(final)
    beside = folder / f".{final.name}.{secrets.token_hex(4)}"
    beside.mkdir()
    try:
        tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
        tensors["rng/torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng/cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, beside / "tensors.safetensors")
        write_file(beside / "state.json", json.dumps(checkpoint.state))
        manifest = {
            "version": VERSION,
            "step": checkpoint.step,
            "config_sha256": run.config_sha256,
            "data_sha256": run.data_sha256(),
            "files": {name: sha256_of_file(beside / name) for name in FILES},
        }
        write_file(beside / "manifest.json", json.dumps(manifest, indent=2))
        publish_folder(beside, final)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    run.events.write("checkpoint", step=checkpoint.step, path=str(final.relative_to(run.path)))
    return final


def newest_checkpoint(run: RunDir) -> Checkpoint | None:
    """The newest checkpoint of any attempt that verifies, its RNG state restored."""
    for folder in run.checkpoints():
        problem = what_is_wrong(run, folder)
        if problem:
            run.events.warning("checkpoint_skipped", f"{folder.relative_to(run.path)}: {problem}")
            continue
        tensors = load_file(folder / "tensors.safetensors")
        torch.set_rng_state(tensors.pop("rng/torch"))
        if "rng/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng/cuda"])
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(int(folder.name.removeprefix("step-")), tensors, state)
    return None


def what_is_wrong(run: RunDir, folder: Path) -> str:
    """Why a checkpoint may not be used; empty when it may."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            return f"written by another version ({manifest['version']})"
        if manifest["config_sha256"] != run.config_sha256:
            return "made with another config"
        if manifest["data_sha256"] != run.data_sha256():
            return "made from other data"
        for name in FILES:
            if sha256_of_file(folder / name) != manifest["files"][name]:
                return f"{name} has changed since it was written"
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return f"cannot be read ({error})"
    return ""
