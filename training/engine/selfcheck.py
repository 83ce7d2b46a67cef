"""`python -m training.engine.selfcheck`: what this engine is made of and runs on, as one JSON line.

For `manage.py doctor`, which must not import torch itself. A package that cannot be imported is
named in `broken`, and the line is written all the same.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.engine.packaged import PACKAGED

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def packages() -> tuple[dict[str, str], dict[str, str]]:
    """(versions, why an import failed), by package: installed is not yet importable."""
    versions, broken = {}, {}
    for name in PACKAGES:
        try:
            importlib.import_module(name)
            versions[name] = version(name)
        except PackageNotFoundError:
            broken[name] = "it is not installed"
        except Exception as error:  # a native library that does not load raises what it likes
            broken[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return versions, broken


def device() -> dict[str, Any]:
    """The accelerator as a run would find it; a small sum proves that it computes."""
    import torch

    if not torch.cuda.is_available():
        return {"cuda": torch.version.cuda, "name": None, "threads": torch.get_num_threads()}
    free, total = torch.cuda.mem_get_info()
    found: dict[str, Any] = {
        "cuda": torch.version.cuda,
        "name": torch.cuda.get_device_name(),
        "free_bytes": free,
        "total_bytes": total,
        "bf16": torch.cuda.is_bf16_supported(),
    }
    try:
        ones = torch.ones(64, 64, device="cuda")
        found["computes"] = bool((ones @ ones).sum().item() == 64**3)
    except RuntimeError as error:
        found["computes"] = False
        found["why"] = str(error).splitlines()[0]
    return found


def packaged_base(name: str) -> dict[str, Any]:
    """Where a packaged base is, and whether the folder that runs read can be opened."""
    from safetensors import SafetensorError, safe_open

    from training.engine.errors import EngineError
    from training.engine.rundir import sha256_of_file
    from training.engine.sources import cache_folder, refuse_unsafe

    try:
        packaged = PACKAGED[name].locate()
    except EngineError as error:
        return {"packaged": None, "converts": False, "folder": None, "why": str(error)}
    converts = PACKAGED[name].is_gguf
    folder = cache_folder() / sha256_of_file(packaged)[:32] if converts else packaged
    found: dict[str, Any] = {
        "packaged": str(packaged),
        "converts": converts,
        "folder": None,
        "why": "",
    }
    if folder.exists():
        found["folder"] = str(folder)
        try:
            refuse_unsafe(folder)
            for path in sorted(folder.glob("*.safetensors")):
                with safe_open(path, framework="pt") as weights:  # a cut file says so here
                    list(weights.keys())
        except (EngineError, SafetensorError, OSError, ValueError) as error:
            found["why"] = str(error).splitlines()[0]
    return found


def main() -> None:
    versions, broken = packages()
    found: dict[str, Any] = {"versions": versions, "broken": broken, "python": sys.executable}
    if "torch" not in broken:
        found["device"] = device()
    if not broken:
        found["bases"] = {name: packaged_base(name) for name in PACKAGED}
    found["folder"] = str(Path(__file__).resolve().parent)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
