"""Texts as unit vectors, by an encoder in a folder: mean of the last states, length 1.

That is how all-MiniLM-L6-v2 and its kin were trained (Reimers & Gurevych 2019, arXiv 1908.10084;
pooling MEAN). The packaged encoder is English; what it makes of other languages is
measured in docs/how-to/retrieve.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.engine.errors import BaseModelError
from training.engine.hashes import sha256_of_model
from training.engine.sources import cache_folder, path_of, refuse_unsafe

if TYPE_CHECKING:
    from torch import Tensor

Vectors = NDArray[np.float32]
#: The packaged encoder.
DEFAULT = "minilm"
#: Texts that are encoded side by side, of like length.
BATCH = 16


def foreign_letters(texts: Iterable[str]) -> float:
    """Share of the texts' letters that are not Latin; 0.0 where there are none."""
    letters = [each for text in texts for each in text if each.isalpha()]
    latin = sum(each < "\u0250" or "\u1e00" <= each <= "\u1eff" for each in letters)
    return 1.0 - latin / len(letters) if letters else 0.0


def locate_encoder(source: str) -> Path:
    """The folder of an encoder. Raises BaseModelError with what to do."""
    folder = path_of(source)
    if not folder.is_dir():
        raise BaseModelError(
            f"encoder {source}: there is no such folder; name {DEFAULT}, or the folder of an "
            "encoder with config.json, tokenizer.json and safetensors"
        )
    refuse_unsafe(folder)
    return folder


class Encoder:
    """An encoder that is loaded when the first text is encoded; counting tokens needs only its
    tokenizer."""

    def __init__(self, source: str = DEFAULT) -> None:
        """Raises BaseModelError for a folder that holds no encoder."""
        self.source = source
        self.folder = locate_encoder(source)
        path = self.folder / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception, for a missing file too
            raise BaseModelError(
                f"encoder {source}: {path.name} cannot be read ({error}); a fast tokenizer is "
                "needed, which says which characters a token stands for"
            ) from None
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @cached_property
    def sha256(self) -> str:
        return sha256_of_model(self.folder, cache_folder())

    @cached_property
    def longest(self) -> int:
        """Tokens of one text that are read, [CLS] and [SEP] included."""
        named = self._json("sentence_bert_config.json").get("max_seq_length")
        config = self._json("config.json").get("max_position_embeddings", 512)
        return int(named or config)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in the text of each of its tokens."""
        found = self.tokenizer.encode(text, add_special_tokens=False).offsets
        return [(int(start), int(end)) for start, end in found]

    @cached_property
    def _model(self) -> Any:
        from safetensors import SafetensorError
        from transformers import AutoModel

        from training.engine.models import pick_device

        try:
            model = AutoModel.from_pretrained(
                str(self.folder), trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise BaseModelError(f"encoder {self.source} cannot be loaded: {reason}") from error
        return model.eval().to(pick_device())

    @cached_property
    def size(self) -> int:
        """Numbers in a vector."""
        return int(self._json("config.json").get("hidden_size", 0)) or int(
            self._model.config.hidden_size
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors; texts beyond `longest` tokens are read up to there. Returns: (N, D)"""
        import torch

        from training.engine.stopping import raise_if_stopped

        found = np.zeros((len(texts), self.size), dtype=np.float32)
        tokens = [self._tokens(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: (len(tokens[index]), index))
        for start in range(0, len(order), BATCH):
            raise_if_stopped()
            chosen = order[start : start + BATCH]
            with torch.no_grad():
                found[chosen] = self._pooled([tokens[index] for index in chosen]).numpy()
        return found

    def _tokens(self, text: str) -> list[int]:
        encoded = self.tokenizer.encode(text, add_special_tokens=True)
        ids = list(encoded.ids)
        if len(ids) > self.longest:
            ids = [*ids[: self.longest - 1], ids[-1]]  # the last one is [SEP]
        return ids

    def _pooled(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Mean of a text's states, scaled to length 1. Returns: (B, D) on the CPU"""
        import torch

        from training.engine.encoders import padded

        model = self._model
        ids, mask = (part.to(model.device) for part in padded([*map(tuple, tokens)], 0))
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, D)
        weights = mask[:, :, None].float()
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
        return torch.nn.functional.normalize(mean, dim=1).cpu()
