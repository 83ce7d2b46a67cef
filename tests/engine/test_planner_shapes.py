"""Parameter counts against transformers' own modules, which hold no memory here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from training.engine.errors import BaseModelError
from training.engine.packaged import PACKAGED
from training.engine.planner_shapes import (
    DECODERS,
    ENCODERS,
    read_shape,
    shape_of,
    shape_of_source,
)

DEMO = PACKAGED["demo"].config


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS])
def test_a_saved_config_gives_the_parameters_of_the_model(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind)
    config.save_pretrained(tmp_path)  # leaves out what is at its default
    auto = AutoModelForCausalLM if kind in DECODERS else AutoModel
    with torch.device("meta"):
        model = auto.from_config(config)
    shape = read_shape(tmp_path)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    norms = [p.numel() for name, p in model.named_parameters() if "norm" in name.lower()]
    assert shape.norm == sum(norms)
    # a classifier's pooler is none of the blocks' layers
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name and name != "lm_head"
    }
    assert shape.linear == sum(module.weight.numel() for module in layers.values())
    assert {layer.name for layer in shape.linears} == {n.rpartition(".")[2] for n in layers}


def test_biases_are_counted_where_the_config_asks_for_them(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert read_shape(tmp_path / "config.json").parameters == sum(
        p.numel() for p in model.parameters()
    )


def test_the_packaged_model_is_known_without_being_converted() -> None:
    shape = shape_of_source("demo")
    assert (shape.parameters, shape.stored_bytes) == (134_515_008, 4)
    assert shape.kv_bytes(4) == 46_080


def test_a_stored_type_is_read_under_both_its_names() -> None:
    older = {**DEMO, "torch_dtype": "bfloat16"}
    del older["dtype"]
    assert shape_of(older).stored_bytes == shape_of({**DEMO, "dtype": "float16"}).stored_bytes == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture of 8 experts"),
        ({"model_type": "qwen3", "n_routed_experts": 64}, "mixture of 64 experts"),
        ({"model_type": "mamba"}, "model_type is 'mamba'; the planner knows"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "576"}, "hidden_size is '576'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_key_value_heads": 2}, "9 attention heads cannot share 2 key-value heads"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BaseModelError, match=words):
        shape_of({**DEMO, **changes})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        (json.dumps({"method": "sft", "base": {}}), "config of a run"),
    ],
)
def test_a_file_that_is_no_model_config_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(BaseModelError, match=words):
        read_shape(tmp_path)


def test_an_absent_file_and_a_hub_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="No such file"):
        read_shape(tmp_path / "config.json")
    with pytest.raises(BaseModelError, match="nothing is downloaded to plan"):
        shape_of_source("org/model")


def test_an_adapter_on_layers_that_are_not_there_is_refused() -> None:
    with pytest.raises(BaseModelError, match="c_attn, which a llama has not; it has down_proj"):
        shape_of(DEMO).adapter(("q_proj", "c_attn"), 8)
