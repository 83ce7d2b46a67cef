"""Attention within trees: a packed row without the work for tokens that do not see one another.

A row of several trees has a mask that is mostly empty: whole blocks of it are tokens of different
trees and branches. Handed to the attention kernel as it is, every one of those blocks is computed
and thrown away (39 % of a DPO step on a CPU, measured). Here each tree's prompt attends to itself
and each branch to its prompt and itself, in calls of their own, which is the same sum with the
zeros left out. The mask still goes along: whatever attention a base brings reads that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: The name under which a base finds `attend`.
IMPLEMENTATION = "tree_sdpa"


@dataclass(frozen=True)
class Blocks:
    """How many tokens of a row are one tree's: its root, then each of its branches.

    The root is the prompt, or prompt and branch where there is one branch only.
    """

    root: int
    branches: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The trees of a row in order, and for each branch what it may look at: (b, root + b)."""

    trees: Sequence[Blocks]
    masks: Sequence[Sequence[Tensor]]

    @property
    def sizes(self) -> list[int]:
        return [size for tree in self.trees for size in (tree.root, *tree.branches)]


def layout_of(trees: Sequence[Blocks], dtype: torch.dtype, device: torch.device) -> Layout:
    """The layout of a row, with masks of numbers: 0 where a token may look, else −∞."""
    masks = [
        [lower_right(size, tree.root, dtype, device) for size in tree.branches] for tree in trees
    ]
    return Layout(trees, masks)


def lower_right(size: int, root: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A causal mask behind `root` tokens that all may see. Returns: (size, root + size)"""
    unseen = torch.full((size, root + size), -torch.inf, dtype=dtype, device=device)
    return unseen.triu_(root + 1)


def with_layout(mask: Tensor, layout: Layout) -> Tensor:
    """The mask with what `attend` reads instead; a model that changes it loses that, to no harm."""
    mask.tree_layout = layout  # type: ignore[attr-defined]
    return mask


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention over PyTorch's kernels, by blocks where the mask has a layout.

    query: (B, heads, T, D). key, value: (B, key heads, T, D). Returns: (B, T, heads, D)
    """
    layout: Layout | None = getattr(attention_mask, "tree_layout", None)
    if layout is None or options.get("position_bias") is not None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return output
    return by_blocks(query, key, value, layout, scaling), None


def by_blocks(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """query: (B, heads, T, D). key, value: (B, key heads, T, D). Returns: (B, T, heads, D)

    Heads share keys where there are fewer of those, without a copy for each (enable_gqa).
    """
    shared = query.shape[1] != key.shape[1]
    # split, whose gradient is one concatenation; that of a slice is a row of zeros for each
    queries, keys, values = (each.split(layout.sizes, dim=2) for each in (query, key, value))
    parts = []
    at = 0
    for tree, masks in zip(layout.trees, layout.masks, strict=True):
        root = at
        at += 1
        if tree.root:
            parts.append(
                scaled_dot_product_attention(
                    queries[root],
                    keys[root],
                    values[root],
                    is_causal=True,
                    scale=scaling,
                    enable_gqa=shared,
                )
            )
        for mask in masks:
            if len(mask):
                parts.append(
                    scaled_dot_product_attention(
                        queries[at],
                        torch.cat((keys[root], keys[at]), dim=2),
                        torch.cat((values[root], values[at]), dim=2),
                        attn_mask=mask,
                        scale=scaling,
                        enable_gqa=shared,
                    )
                )
            at += 1
    return torch.cat([part.transpose(1, 2) for part in parts], dim=1)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
