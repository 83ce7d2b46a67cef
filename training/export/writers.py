"""A model version as a folder that stock PEFT or transformers loads from the Hub."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from django.conf import settings

from annotate.errors import HubRefused
from training.engine.files import ADAPTER_FILES, CLASSIFIER, REWARD_SCALE, adapter_digest
from training.engine.hashes import sha256_of_model
from training.export.card import model_card
from training.export.facts import base_model, lineage
from training.models import ModelVersion

#: What beside the weights goes along: the tokenizer's files, none of which can hold code.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
)
#: Of a whole model: its weights, perhaps in parts, and what is said of them.
WEIGHTS = re.compile(
    rf"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|generation_config\.json|"
    rf"{re.escape(REWARD_SCALE)}"
)


def require_trained(version: ModelVersion) -> None:
    """Raise HubRefused for a base: nothing of it was made here."""
    if version.kind == ModelVersion.Kind.BASE:
        raise HubRefused(
            f"version {version.pk} ({version}) is a base, not something trained here; push a "
            "version that has an adapter or weights of its own"
        )


def write_model_folder(*, version: ModelVersion, folder: Path, repo: str) -> Path:
    """Weights, tokenizer, card and lineage.json in `folder`, free of this machine's paths.

    Raises HubRefused for a base, and where the weights are gone or are not the registered ones.
    """
    require_trained(version)
    whole = bool(version.model_path)
    source = Path(settings.RUNS_DIR) / (version.model_path or version.adapter_path)
    try:
        digest = sha256_of_model(source, source.parent) if whole else adapter_digest(source)
    except OSError as error:
        raise HubRefused(
            f"the weights of version {version.pk} cannot be read ({error.strerror or error})"
        ) from error
    if digest != version.digest:
        raise HubRefused(
            f"what version {version.pk} holds has changed since it was registered; it is not "
            "pushed under that version's name"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and wanted(path.name, whole=whole):
            shutil.copyfile(path, folder / path.name)
    if not whole:
        name_the_base(folder / "adapter_config.json", version)
    for name in ("tokenizer_config.json", CLASSIFIER):
        forget_paths(folder / name)
    (folder / "README.md").write_text(model_card(version, repo), encoding="utf-8")
    text = json.dumps(lineage(version), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "lineage.json").write_text(text + "\n", encoding="utf-8")
    return folder


def wanted(name: str, *, whole: bool) -> bool:
    """Whether a file of a version's folder goes along."""
    if name in TOKENIZER or name == CLASSIFIER:
        return True
    return WEIGHTS.fullmatch(name) is not None if whole else name in ADAPTER_FILES


def name_the_base(path: Path, version: ModelVersion) -> None:
    """PEFT finds the base by what its config says: say it so that others find it too."""
    base = base_model(version)
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    write_json(path, config)


def forget_paths(path: Path) -> None:
    """Drop what a tokenizer remembers of the folder it was loaded from."""
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(
        path,
        {
            key: value
            for key, value in config.items()
            if key != "is_local" and not (isinstance(value, str) and value.startswith("/"))
        },
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
