"""A model version as a folder that stock PEFT loads from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from annotate.errors import HubRefused
from training.engine.files import ADAPTER_FILES, adapter_digest
from training.export.card import model_card
from training.export.facts import base_model, lineage
from training.models import ModelVersion
from training.services.versions import adapter_folder

#: What beside the weights goes along: the tokenizer's files, none of which can hold code.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def require_adapter(version: ModelVersion) -> None:
    """Raise HubRefused for a base: it has no adapter, so there is nothing of ours to push."""
    if version.model_path:
        raise HubRefused(
            f"version {version.pk} ({version}) is a whole model, and only adapters are pushed from "
            f"here; its folder is {version.model_path} in the runs folder, complete as it is: "
            "hf upload REPO FOLDER"
        )
    if not version.adapter_path:
        raise HubRefused(
            f"version {version.pk} ({version}) is a base, not something trained here; push a "
            "version that has an adapter"
        )


def write_model_folder(*, version: ModelVersion, folder: Path, repo: str) -> Path:
    """Adapter, tokenizer, card and lineage.json in `folder`, free of this machine's paths.

    Raises HubRefused for a base, and where the adapter is gone or is not the registered one.
    """
    require_adapter(version)
    source = Path(adapter_folder(version) or "")
    try:
        if adapter_digest(source) != version.digest:
            raise HubRefused(
                f"the adapter of version {version.pk} has changed since it was registered; it is "
                "not pushed under that version's name"
            )
    except OSError as error:
        raise HubRefused(
            f"the adapter of version {version.pk} cannot be read ({error.strerror or error})"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*ADAPTER_FILES, *TOKENIZER):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    name_the_base(folder / "adapter_config.json", version)
    forget_paths(folder / "tokenizer_config.json")
    (folder / "README.md").write_text(model_card(version, repo), encoding="utf-8")
    text = json.dumps(lineage(version), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "lineage.json").write_text(text + "\n", encoding="utf-8")
    return folder


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
