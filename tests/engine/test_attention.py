"""Attention by blocks is the masked sum with its zeros left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.engine.test_packing import trees
from training.engine import models
from training.engine.attention import Blocks, by_blocks, layout_of
from training.engine.batching import EVERY, LEAST_COMMON, PROMPT, Packing, pack, tree_mask
from training.engine.data import Branch, Tree
from training.engine.logprobs import states_at
from training.engine.models import Base

CPU = torch.device("cpu")


def mask_of(blocks: Sequence[Blocks], common: int) -> torch.Tensor:
    """The mask that packing makes of the same trees."""
    tree_of, part_of = [EVERY] * common, [PROMPT] * common
    for number, tree in enumerate(blocks):
        parts = [PROMPT] * tree.root
        for branch, size in enumerate(tree.branches):
            parts += [branch] * size
        part_of += parts
        tree_of += [number] * len(parts)
    return tree_mask(torch.tensor(tree_of), torch.tensor(part_of))


@pytest.mark.parametrize("wanted", [None, [2, 3, 9, 11]], ids=["all tokens", "some"])
@pytest.mark.parametrize("common", [0, 3, 9])
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
    blocks: list[Blocks], key_heads: int, common: int, wanted: list[int] | None
) -> None:
    mask = mask_of(blocks, common)
    torch.manual_seed(0)
    asked = None if wanted is None else torch.tensor([w for w in wanted if w < len(mask)])
    query = torch.randn(1, 6, len(mask), 8, requires_grad=True)
    key, value = (torch.randn(1, key_heads, len(mask), 8, requires_grad=True) for _ in "kv")
    weights = torch.randn(1, len(mask) if asked is None else len(asked), 6, 8)

    def of_asked() -> torch.Tensor:
        return query if asked is None else query[:, :, asked]

    def with_gradients(output: torch.Tensor) -> list[torch.Tensor]:
        gradients = torch.autograd.grad((output * weights).sum(), [query, key, value])
        return [output, *gradients]

    whole = [each.repeat_interleave(6 // key_heads, dim=1) for each in (key, value)]
    rows = mask if asked is None else mask[asked]
    dense = scaled_dot_product_attention(of_asked(), *whole, attn_mask=rows, scale=0.3)
    layout = layout_of(blocks, torch.float32, CPU, common=common, wanted=asked)
    ours = by_blocks(of_asked(), key, value, layout, 0.3, asked=asked is not None)
    expected = with_gradients(dense.transpose(1, 2))
    for found, right in zip(with_gradients(ours), expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)


def test_a_base_attends_by_blocks_and_says_what_its_mask_says(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = Tree(trees(base, 1)[0].prompt, (Branch((5, 6, 7)),))
    (row,) = pack([*trees(base, 3), lone], Packing(4096, shared=True))[0]
    assert row.common >= LEAST_COMMON
    every = torch.arange(len(row.input_ids))
    by_layout, of_few = states_at(base, row, every), states_at(base, row, row.sources)
    monkeypatch.setattr(models, "with_layout", lambda mask, layout: mask)
    by_mask = states_at(base, row, every)
    torch.testing.assert_close(by_layout, by_mask, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(of_few, by_mask[row.sources], atol=1e-5, rtol=1e-5)
    assert not torch.equal(by_layout, by_mask)  # they were computed apart
