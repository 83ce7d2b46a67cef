"""Attention by blocks is the masked sum with its zeros left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.engine.test_packing import trees
from training.engine import models
from training.engine.attention import Blocks, by_blocks, layout_of
from training.engine.batching import Packing, pack, tree_mask
from training.engine.data import Branch, Tree
from training.engine.logprobs import row_states
from training.engine.models import Base

CPU = torch.device("cpu")


def mask_of(blocks: Sequence[Blocks]) -> torch.Tensor:
    """The mask that packing makes of the same trees."""
    tree_of, part_of = [], []
    for number, tree in enumerate(blocks):
        parts = [-1] * tree.root
        for branch, size in enumerate(tree.branches):
            parts += [branch] * size
        part_of += parts
        tree_of += [number] * len(parts)
    return tree_mask(torch.tensor(tree_of), torch.tensor(part_of))


@pytest.mark.parametrize("key_heads", [6, 2])
@pytest.mark.parametrize(
    "blocks",
    [
        [Blocks(5, (3, 4)), Blocks(1, (1, 1)), Blocks(7, ())],
        [Blocks(4, (0, 3)), Blocks(3, (2, 2, 5, 1))],  # an empty answer
        [Blocks(0, (2, 3))],  # no prompt
    ],
    ids=["pairs and a lone text", "an empty branch", "no root"],
)
def test_values_and_gradients_are_those_under_the_mask(
    blocks: list[Blocks], key_heads: int
) -> None:
    mask = mask_of(blocks)
    torch.manual_seed(0)
    inputs = [
        torch.randn(1, heads, len(mask), 8, requires_grad=True)
        for heads in (6, key_heads, key_heads)
    ]
    weights = torch.randn(1, len(mask), 6, 8)

    def with_gradients(output: torch.Tensor) -> list[torch.Tensor]:
        return [output, *torch.autograd.grad((output * weights).sum(), inputs)]

    query, *rest = inputs
    key, value = (each.repeat_interleave(6 // key_heads, dim=1) for each in rest)
    dense = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
    dense = dense.transpose(1, 2)
    layout = layout_of(blocks, torch.float32, CPU)
    ours = by_blocks(*inputs, layout, 0.3)
    for found, expected in zip(with_gradients(ours), with_gradients(dense), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_base_attends_by_blocks_and_says_what_its_mask_says(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = Tree(trees(base, 1)[0].prompt, (Branch((5, 6, 7)),))
    (row,) = pack([*trees(base, 3), lone], Packing(4096, shared=True))[0]
    calls = []
    real = by_blocks

    def counted(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("training.engine.attention.by_blocks", counted)
    by_layout = row_states(base, row)
    assert len(calls) == base.causal.config.num_hidden_layers
    monkeypatch.setattr(models, "with_layout", lambda mask, layout: mask)
    by_mask = row_states(base, row)
    assert len(calls) == base.causal.config.num_hidden_layers
    torch.testing.assert_close(by_layout, by_mask, atol=1e-5, rtol=1e-5)
