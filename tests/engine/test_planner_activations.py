"""The planner's bytes against what PyTorch keeps: autograd's own tensors, counted by storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from training.engine import generation, logprobs
from training.engine.attention import IMPLEMENTATION, Blocks, layout_of, with_layout
from training.engine.config import OptimConfig
from training.engine.lean_layers import keep_less
from training.engine.optimizers import make_optimizer
from training.engine.planner_memory import (
    CHUNK,
    DECODE_ROOM,
    DECODE_ROWS,
    Layout,
    Work,
    bits_per_weight,
    block_bytes,
    moment_bytes,
    pass_stages,
    trained_parameters,
)
from training.engine.planner_shapes import BaseShape, Linear, shape_of

T = 96
QV = ("q_proj", "v_proj")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZES = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
BF16: dict[str, Any] = {"held": "bfloat16", "compute_bytes": 2, "other_bytes": 2}
DTYPES = {2: torch.bfloat16, 4: torch.float32}


def config_of(kind: str, layers: int) -> dict[str, Any]:
    sizes = dict(SIZES)
    if kind == "bert":
        sizes = {k: v for k, v in sizes.items() if k not in ("num_key_value_heads", "head_dim")}
        sizes["max_position_embeddings"] = 128
    if kind.startswith("gemma"):
        sizes["tie_word_embeddings"] = True
    return {"model_type": kind, "num_hidden_layers": layers, **sizes}


def made(kind: str, layers: int, layout: Layout) -> tuple[nn.Module, BaseShape]:
    named = config_of(kind, layers)
    inner = {k: v for k, v in named.items() if k != "model_type"}
    config = AutoConfig.for_model(kind, pad_token_id=0, **inner)
    auto: Any = AutoModel if kind == "bert" else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="sdpa")
    model.to(torch.float32 if layout.mixed else DTYPES[layout.compute_bytes])
    if layout.lean:
        keep_less(model)
    if layout.tuning == "lora":
        lora = LoraConfig(r=layout.r, target_modules=list(layout.targets), use_dora=layout.dora)
        model = get_peft_model(model, lora)
    return model.eval(), shape_of(named)


def kept_bytes(
    model: Any,
    layout: Layout,
    *,
    masked: bool,
    checkpointing: bool = False,
    trees: Sequence[Blocks] = (),
) -> int:
    """What autograd holds after a forward pass, each storage once, parameters left out."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = getattr(inner, "model", inner)
    if checkpointing:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        inner.train()
        inner.enable_input_require_grads()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage  # held, so that no later one takes its address
        return tensor

    ids = torch.randint(1, 100, (1, T))
    dtype = {2: torch.bfloat16, 4: torch.float32}[layout.compute_bytes]
    numbers = torch.full((T, T), -torch.inf, dtype=dtype).triu(1)[None, None]  # as `Base.hidden`
    own.add(numbers.untyped_storage().data_ptr())
    mask = numbers if masked else None
    if trees:
        inner.set_attn_implementation(IMPLEMENTATION)
        layout_of_row = layout_of(trees, dtype, numbers.device)
        masks = [block.mask for block in layout_of_row.blocks if block.mask is not None]
        own |= {mask.untyped_storage().data_ptr() for mask in masks}
        mask = with_layout(numbers, layout_of_row)
    more = {"use_cache": False} if backbone is not inner else {}
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=layout.mixed),
    ):
        states = backbone(input_ids=ids, attention_mask=mask, **more).last_hidden_state
    assert states.requires_grad
    return sum(storage.nbytes() for storage in seen.values())


def one_block(kind: str, layout: Layout, *, masked: bool) -> tuple[BaseShape, int]:
    """(the shape, what the third block keeps): the first may need less, and all else cancels.

    Autocast's copies of the block's weights are a term of their own.
    """
    two, _ = made(kind, 2, layout)
    three, shape = made(kind, 3, layout)
    got = kept_bytes(three, layout, masked=masked) - kept_bytes(two, layout, masked=masked)
    return shape, got - (2 * shape.linear // shape.layers if layout.mixed else 0)


def work(*, masked: bool) -> Work:
    return Work(tokens=T, length=T, scored=T, masked=masked)


def named(case: Any) -> str:
    if not isinstance(case, Layout):
        return str(case)
    what = "full" if case.tuning == "full" else f"r{case.r}-{len(case.targets)}-layers"
    return f"{what}-{case.held}{'-mixed' if case.mixed else ''}{'-lean' if case.lean else ''}"


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("llama", Layout(r=8, targets=QV)),
        ("llama", Layout(r=8, targets=ALL)),
        ("llama", Layout(r=8, targets=QV, **BF16)),
        ("llama", Layout(r=8, targets=ALL, **BF16)),
        ("llama", Layout(tuning="full")),
        ("llama", Layout(tuning="full", **BF16)),
        ("llama", Layout(tuning="full", compute_bytes=2)),
        ("mistral", Layout(r=4, targets=("o_proj", "down_proj"))),
        ("qwen2", Layout(r=8, targets=QV)),
        ("qwen3", Layout(r=8, targets=QV)),
        ("qwen3", Layout(tuning="full")),
        ("smollm3", Layout(r=8, targets=QV)),
        ("llama", Layout(r=8, targets=QV, lean=True)),
        ("llama", Layout(r=8, targets=ALL, lean=True)),
        ("llama", Layout(r=8, targets=QV, lean=True, **BF16)),
        ("llama", Layout(r=8, targets=ALL, lean=True, **BF16)),
        ("llama", Layout(tuning="full", lean=True)),
        ("llama", Layout(tuning="full", lean=True, compute_bytes=2)),
        ("mistral", Layout(r=8, targets=ALL, lean=True)),
        ("qwen2", Layout(r=8, targets=QV, lean=True)),
        ("qwen3", Layout(r=8, targets=QV, lean=True)),
        ("qwen3", Layout(r=8, targets=QV, lean=True, **BF16)),
        # not among the classes that keep less
        ("smollm3", Layout(r=8, targets=QV, lean=True)),
    ],
    ids=named,
)
def test_a_decoder_block_keeps_what_is_planned(kind: str, layout: Layout, masked: bool) -> None:
    shape, got = one_block(kind, layout, masked=masked)
    assert block_bytes(shape, layout, work(masked=masked)) == got


@pytest.mark.parametrize(
    ("trees", "joined"),
    [
        ([Blocks(T // 2, ()), Blocks(T // 2, ())], 0),
        # each branch behind its prompt: 7 + 3, 7 + 2, and the rest behind 5
        ([Blocks(7, (3, 2)), Blocks(5, (T - 18, 1))], 10 + 9 + T - 13 + 6),
    ],
    ids=["one answer each", "two answers each"],
)
def test_branches_keep_keys_and_values_with_their_prompts(trees: list[Blocks], joined: int) -> None:
    layout = Layout(r=8, targets=QV)
    (two, _), (three, shape) = (made("llama", n, layout) for n in (2, 3))
    more = kept_bytes(three, layout, masked=True, trees=trees)
    more -= kept_bytes(two, layout, masked=True, trees=trees)
    assert (
        block_bytes(shape, layout, replace(work(masked=True), by_trees=True, joined=joined)) == more
    )


@pytest.mark.parametrize(
    "layout",
    [Layout(tuning="full", trains_head=False), Layout(r=8, targets=("query", "value"))],
    ids=named,
)
def test_an_encoder_block_keeps_what_is_planned(layout: Layout) -> None:
    shape, got = one_block("bert", layout, masked=False)
    assert block_bytes(shape, layout, work(masked=False)) == got


@pytest.mark.parametrize(
    ("kind", "targets"), [("gemma", QV), ("gemma3_text", QV), ("phi3", ("qkv_proj",))]
)
def test_other_decoders_keep_little_else(kind: str, targets: tuple[str, ...]) -> None:
    """Gemma's norms keep their factors too."""
    layout = Layout(r=8, targets=targets)
    shape, got = one_block(kind, layout, masked=True)
    assert block_bytes(shape, layout, work(masked=True)) == pytest.approx(got, rel=0.005)


def test_a_recomputed_block_keeps_its_input_alone() -> None:
    layout = Layout(r=8, targets=QV)
    two, three = (
        kept_bytes(made("llama", n, layout)[0], layout, masked=True, checkpointing=True)
        for n in (2, 3)
    )
    asked = Work(tokens=T, length=T, scored=T, checkpointing=True)
    shapes = [made("llama", n, layout)[1] for n in (2, 3)]
    (head, more) = (pass_stages(shape, layout, asked)["head"][0].bytes for shape in shapes)
    assert three - two == T * 64 * 4 == more - head


def test_quantized_weights_take_what_bitsandbytes_takes() -> None:
    rows, columns = 256, 1024
    layer = bitsandbytes.nn.Linear4bit(
        columns, rows, bias=False, quant_type="nf4", compress_statistics=True
    )
    layer.to("cpu")
    with torch.no_grad():
        layer(torch.zeros(1, columns))
    state = layer.weight.quant_state
    assert layer.weight.data.nbytes == rows * columns // 2
    scales = state.absmax.nbytes + state.state2.absmax.nbytes
    planned = bits_per_weight(Linear("layer", columns, rows), Layout(held="nf4"))
    assert 8 * (layer.weight.data.nbytes + scales) / (rows * columns) == planned


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_moments_take_what_the_optimizer_holds(name: str) -> None:
    layout = Layout(tuning="full", optimizer=name)
    model, shape = made("llama", 2, layout)
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == trained_parameters(shape, layout)
    optimizer = make_optimizer(parameters, OptimConfig(optimizer=name))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step" and not key.startswith("qmap")
    )
    assert moment_bytes(shape, layout) == held


def test_the_planner_knows_the_sizes_that_the_engine_uses() -> None:
    assert logprobs.CHUNK == CHUNK
    assert (generation.BATCH, generation.ROOM) == (DECODE_ROWS, DECODE_ROOM)
