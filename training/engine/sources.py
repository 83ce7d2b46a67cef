"""Where a base comes from: a packaged model, a folder, a .gguf file converted once, or the Hub.

Nothing is opened that could run code: safetensors and JSON only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.engine.config import BaseConfig
from training.engine.errors import BaseModelError
from training.engine.files import cannot_write, publish_folder, require_space
from training.engine.hashes import remembered_sha256, sha256_of_model
from training.engine.packaged import NAMES, PACKAGED, converted_once
from training.engine.planner_shapes import ENCODERS

#: Files that could run code when opened; a folder that holds one is refused.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
#: Converted GGUF weights take about this many times the file's size.
GGUF_GROWTH = 6


def cache_folder() -> Path:
    """Where converted bases are kept: $ENGINE_CACHE_DIR, else the user's cache folder."""
    default = Path.home() / ".cache" / "annotate-and-align" / "models"
    return Path(os.environ.get("ENGINE_CACHE_DIR", default))


def locate(source: str) -> str:
    """A folder or Hub id that transformers can load, converting a .gguf file once.

    Raises BaseModelError for what does not exist, OutOfSpaceError where the cache has no room.
    """
    path = path_of(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise BaseModelError(f"base.source {source}: there is no such file")
        return str(converted_gguf(path))
    if path.is_dir():
        refuse_unsafe(path)
        return str(path)
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise BaseModelError(f"base.source {source}: there is no such folder")
    return source


def path_of(source: str) -> Path:
    """Where a base would lie, packaged ones in their package; of a Hub id, where nothing does.

    Raises BaseModelError for a packaged base that is not installed.
    """
    packaged = PACKAGED.get(source)
    return packaged.locate() if packaged is not None else Path(source).expanduser()


def identity_of_base(config: BaseConfig) -> dict[str, str]:
    """What tells a base from every other: the hash of its files, or the commit of a Hub id.

    Raises BaseModelError for a base that does not exist or cannot be reached.
    """
    source = config.source
    named = {"source": source}
    located = locate(source)
    if converted_once(source):
        return named | {"sha256": remembered_sha256(path_of(source), cache_folder())}
    if Path(located).is_dir():
        return named | {"sha256": sha256_of_model(Path(located), cache_folder())}
    try:
        found = hf_hub_download(source, "config.json", revision=config.revision)
    except (OSError, ValueError) as error:
        raise not_loaded(source, error) from error
    return named | {"commit": Path(found).parent.name}  # …/snapshots/<commit>/config.json


def not_loaded(source: str, error: Exception) -> BaseModelError:
    reason = str(error).strip().split("\n")[0]
    return BaseModelError(
        f"the base {source!r} could not be loaded: {reason} (use {NAMES}, a local folder with "
        "safetensors, a .gguf file, or a Hub id that this machine can reach)"
    )


def refuse_unsafe(folder: Path) -> None:
    """Raise BaseModelError for a model folder with pickled weights or code of its own."""
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise BaseModelError(f"{folder} holds no config.json; is it a model folder?")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise BaseModelError(f"{config_path} is not JSON") from None
    if "auto_map" in config or "auto_map" in tokenizer_config(folder):
        raise BaseModelError(f"{folder} wants to run code of its own (auto_map); that is refused")
    if not list(folder.glob("*.safetensors")):
        pickled = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
        held = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise BaseModelError(f"{folder} holds {held}; safetensors are needed")


def refuse_wordless(source: str) -> None:
    """Raise BaseModelError for an encoder, or a folder that scores texts: who writes them is asked.

    source: as `locate` gives it.
    """
    path = Path(source) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kinds = [str(each) for each in config.get("architectures") or []]
    if any(each.endswith("ForSequenceClassification") for each in kinds):
        raise BaseModelError(
            f"{source} holds a reward model ({kinds[0]}), which has no language-model head; a base "
            "is a causal language model"
        )
    family = config.get("model_type")
    if family in ENCODERS and not config.get("is_decoder"):
        raise BaseModelError(
            f"{source} is an encoder ({family}), which writes no text and gives none a "
            "probability; it can be trained by classify, and searched with by RAG"
        )


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """A tokenizer's settings; none where there are none, or what is there is no JSON object."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}  # whoever loads it says what is wrong with it


def converted_gguf(path: Path) -> Path:
    """The safetensors folder made from a .gguf file, keyed by the file's content."""
    final = cache_folder() / remembered_sha256(path, cache_folder())[:32]
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BaseModelError(
            f"{final.parent} cannot be written ({error.strerror}): converted bases are kept there; "
            "set ENGINE_CACHE_DIR to a folder of yours"
        ) from error
    require_space(final.parent, path.stat().st_size * GGUF_GROWTH, f"converting {path.name}")
    beside = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    try:
        gguf = {"gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **gguf)
        loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), **gguf, dtype=torch.float32)
        # transformers marks such a model as quantized and refuses to save it, though its weights
        # are plain tensors by now: rebuild it from a config without the mark.
        config = type(loaded.config).from_dict(loaded.config.to_dict())
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        try:
            publish_folder(beside, final)
        except OSError:
            if not final.is_dir():  # another process may have published the same bytes first
                raise
    except (ValueError, KeyError, RuntimeError) as error:
        raise BaseModelError(f"{path} could not be read as GGUF: {error}") from error
    except (OSError, SafetensorError) as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final
