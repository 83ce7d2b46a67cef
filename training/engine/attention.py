"""Attention within trees: a packed row without the work for tokens that do not see one another.

A row of several trees has a mask that is mostly empty: whole blocks of it are tokens of different
trees and branches. Handed to the attention kernel as it is, every one of those blocks is computed
and thrown away (39 % of a DPO step on a CPU, measured). Here each tree's prompt attends to itself
and each branch to its prompt and itself (and both to what all trees of the row begin with), in
calls of their own, which is the same sum with the zeros left out. The mask still goes along:
whatever attention a base brings reads that instead.
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

    The root is the prompt, or prompt and branch where there is one branch only; without what all
    trees of the row begin with.
    """

    root: int
    branches: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Tokens that stand together in a row and see the same blocks before them, and themselves.

    before: the places in the row of the blocks that all of its tokens see, in their order.
    """

    size: int
    before: tuple[int, ...]
    mask: Tensor | None
    """What each may look at: (size, tokens before + size) of 0, else −∞; None: causal, alone."""
    asked_mask: Tensor | None
    """The mask's rows of the n tokens that the last layer is asked for: (n, tokens before + size);
    None where it is asked for all."""


@dataclass(frozen=True)
class Layout:
    """The blocks of a row in order, and which of its tokens the last layer is asked for.

    wanted: (n,) ascending, or None for all.
    """

    blocks: Sequence[Block]
    wanted: Tensor | None

    @property
    def sizes(self) -> list[int]:
        return [block.size for block in self.blocks]

    @property
    def asked_sizes(self) -> list[int]:
        """How many tokens of each block the last layer is asked for, where not for all."""
        return [0 if block.asked_mask is None else len(block.asked_mask) for block in self.blocks]


def layout_of(
    trees: Sequence[Blocks],
    dtype: torch.dtype,
    device: torch.device,
    *,
    common: int = 0,
    wanted: Tensor | None = None,
) -> Layout:
    """The layout of a row of trees behind `common` tokens that they all begin with.

    wanted: (n,) the tokens that the last layer is asked for, ascending; all by default.
    """
    blocks: list[Block] = []
    sizes: list[int] = []

    def add(size: int, before: tuple[int, ...]) -> int:
        seen = sum(sizes[place] for place in before)
        start = sum(sizes)
        asked_mask = None
        if wanted is not None:
            asked = wanted[(wanted >= start) & (wanted < start + size)] - start
            asked_mask = lower_right(asked, seen, seen + size, dtype)
        own = torch.arange(size, device=device)
        mask = lower_right(own, seen, seen + size, dtype) if before else None
        blocks.append(Block(size, before, mask, asked_mask))
        sizes.append(size)
        return len(sizes) - 1

    to_all = (add(common, ()),) if common else ()
    for tree in trees:
        behind = (*to_all, add(tree.root, to_all)) if tree.root else to_all
        for size in tree.branches:
            if size:
                add(size, behind)
    return Layout(blocks, wanted)


def lower_right(own: Tensor, seen: int, width: int, dtype: torch.dtype) -> Tensor:
    """A causal mask of some tokens of a block behind `seen` tokens that all may see.

    own: (n,) their places in the block. Returns: (n, width) of 0 where a token may look, else −∞
    """
    keys = torch.arange(width, device=own.device)
    unseen = torch.zeros(len(own), width, dtype=dtype, device=own.device)
    return unseen.masked_fill_(keys > seen + own[:, None], -torch.inf)


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
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    *,
    asked: bool = False,
) -> Tensor:
    """query: (B, heads, T, D). key, value: (B, key heads, T, D). Returns: (B, T, heads, D)

    asked: only of the n tokens that the layout's last layer is asked for, with n for T in the
    query and what is returned.
    Heads share keys where there are fewer of those, without a copy for each (enable_gqa).
    """
    # split, whose gradient is one concatenation; that of a slice is a row of zeros for each
    queries = query.split(layout.asked_sizes if asked else layout.sizes, dim=2)
    keys, values = (each.split(layout.sizes, dim=2) for each in (key, value))
    parts = []
    for place, block in enumerate(layout.blocks):
        if not queries[place].shape[2]:
            continue
        whole = (*block.before, place)
        mask = block.asked_mask if asked else block.mask
        part = scaled_dot_product_attention(
            queries[place],
            joined(keys, whole),
            joined(values, whole),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1)


def joined(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Some parts of a row one behind the other. parts: (B, heads, size, D) each."""
    chosen = [parts[place] for place in places]
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=2)


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
