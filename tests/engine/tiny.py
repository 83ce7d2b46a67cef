"""A random Llama of 2 layers and 64 channels with a real tokenizer: a run takes seconds."""

from __future__ import annotations

import atexit
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from training.engine.packaged import PACKAGED


@cache
def converted_tokenizer() -> Path:
    """SmolLM2's own tokenizer (pad == EOS, ChatML); reading it from the GGUF takes seconds."""
    folder = Path(mkdtemp(prefix="tokenizer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    gguf = PACKAGED["demo"].locate()
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> Any:
    """A copy of it."""
    shutil.copytree(converted_tokenizer(), folder, dirs_exist_ok=True)
    return AutoTokenizer.from_pretrained(folder)


def save_tiny(
    folder: Path, *, sliding_window: int | None = None, seed: int = 0, **changes: Any
) -> Path:
    """A model folder that `base.source` may name; `changes` are laid over its shape."""
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.08,
        "tie_word_embeddings": True,
        **changes,
    }
    model: Any
    if sliding_window is None:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    else:
        model = MistralForCausalLM(MistralConfig(**shape, sliding_window=sliding_window))
    model.save_pretrained(folder)
    return folder


def save_words(folder: Path, *, words: int | str = 12, seed: int = 0, **changes: Any) -> Path:
    """A model folder that knows so many words, or these; its runs take well under a second.

    Its pad token is its end of turn, as in SmolLM2.
    """
    names = words.split() if isinstance(words, str) else [f"w{n}" for n in range(words)]
    known = ["<end>", "<user>", "<assistant>", "<unk>", *names]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", pad_token="<end>", unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(known),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        **changes,
    }
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    return folder


def save_encoder(folder: Path, kind: str, *, words: str, seed: int = 0, **changes: Any) -> Path:
    """A bert, roberta or distilbert trained on nothing that knows these words, as a masked language
    model: without a pooler or any other head of a classifier."""
    known = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *words.split()]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(known),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        **changes,
    }
    config_of, model_of = ENCODERS[kind]
    if kind == "distilbert":
        names = {"hidden_size": "dim", "intermediate_size": "hidden_dim",
                 "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}  # fmt: skip
        shape = {names.get(name, name): value for name, value in shape.items()}
    model_of(config_of(**shape)).save_pretrained(folder)
    return folder


ENCODERS: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForMaskedLM),
    "roberta": (RobertaConfig, RobertaForMaskedLM),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM),
}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def preference_row(
    number: int, *, good: str = "yes indeed", bad: str = "no never"
) -> dict[str, Any]:
    """A pair whose chosen answer is always the same kind of text, so that it can be learnt."""
    return {
        "id": f"row-{number}",
        "prompt_id": f"prompt-{number}",
        "prompt": user(f"Question number {number}?"),
        "chosen": assistant(f"{good} {number}"),
        "rejected": assistant(f"{bad} {number}"),
        "probability": 1.0,
    }


def make_run(folder: Path, config: dict[str, Any], **files: list[dict[str, Any]]) -> Path:
    """A run folder with config.json and data/NAME.jsonl."""
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def events(folder: Path) -> list[dict[str, Any]]:
    """All events of all attempts, in order."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("attempts/*/events.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return sorted(lines, key=lambda event: event["at"])


def result(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return loaded
