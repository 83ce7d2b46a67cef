"""Packing trees into rows: a shared prompt is encoded once, by everything that follows it.

A packed row holds several trees one after the other. A token sees its own tree's prompt and its own
branch up to itself, and positions restart with every tree and branch, so that each branch reads as
if it stood alone behind its prompt (dpo-prefix-sharing, arXiv 2410.20305). What all prompts of a
row begin with, most often a system prompt, stands once before them all. Plain rows hold one prompt
and one branch under ordinary causal attention: slower, and right for every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.engine.attention import Blocks
from training.engine.data import Branch, Tree
from training.engine.distributed import share

PROMPT = -1
#: The tree of tokens that all trees of a row begin with.
EVERY = -1
#: A beginning of fewer tokens is not worth attention of its own.
LEAST_COMMON = 8


@dataclass(frozen=True)
class PackedRow:
    """One row for the model. N is the number of scored tokens, B of branches in it.

    input_ids, positions: (T,). mask: (T, T) bool, or None for causal attention.
    sources: (N,) index of the hidden state that predicts each scored token.
    targets: (N,) the scored tokens. branch_of: (N,) which of the row's branches a token is in.
    branches: for each, (index of its tree in the batch, index of the branch in the tree).
    last: (B,) index of each branch's last token (of the prompt's, where the branch is empty).
    common: tokens at the row's beginning that all its trees begin with.
    trees: what the mask says of the tokens behind those, as blocks in the order of the row.
    """

    input_ids: Tensor
    positions: Tensor
    mask: Tensor | None
    sources: Tensor
    targets: Tensor
    branch_of: Tensor
    branches: list[tuple[int, int]]
    last: Tensor
    common: int
    trees: tuple[Blocks, ...]

    def to(self, device: torch.device) -> PackedRow:
        return PackedRow(
            self.input_ids.to(device),
            self.positions.to(device),
            None if self.mask is None else self.mask.to(device),
            self.sources.to(device),
            self.targets.to(device),
            self.branch_of.to(device),
            self.branches,
            self.last.to(device),
            self.common,
            self.trees,
        )


@dataclass(frozen=True)
class Packing:
    """How trees become rows: tokens per row, and whether branches share their prompt."""

    budget: int
    shared: bool


def pack(
    trees: Sequence[Tree], packing: Packing, only: Sequence[int] | None = None
) -> list[list[PackedRow]]:
    """Groups of rows; every branch of a tree is in the same group, so a loss needs one group.

    Shared: each group is one row of at most `packing.budget` tokens (a longer tree gets its own
    row); trees go in by decreasing length, each into the first row with room (deterministic).
    Not shared: each group is one tree, each branch in a plain row behind its own prompt.
    only: the indices of the trees to pack; all of them by default.
    """
    wanted = range(len(trees)) if only is None else only
    if not packing.shared:
        return [
            [
                build_row([(index, trees[index])], only=branch)
                for branch in range(len(trees[index].branches))
            ]
            for index in wanted
        ]
    bins: list[list[tuple[int, Tree]]] = []
    room: list[int] = []
    order = sorted(wanted, key=lambda index: (-trees[index].length, index))
    for index in order:
        tree = trees[index]
        fits = next((i for i, left in enumerate(room) if left >= tree.length), None)
        if fits is None:
            bins.append([])
            room.append(max(packing.budget, tree.length))
            fits = len(bins) - 1
        bins[fits].append((index, tree))
        room[fits] -= tree.length
    return [[build_row(group)] for group in bins]


def pack_share(trees: Sequence[Tree], packing: Packing) -> list[list[PackedRow]]:
    """`pack` of the trees that fall to this process, all of them in a run of one process."""
    return pack(trees, packing, only=share([tree.length for tree in trees]))


def build_row(group: Sequence[tuple[int, Tree]], *, only: int | None = None) -> PackedRow:
    """One row from (index in the batch, tree) pairs; `only` keeps a single branch of each."""
    common = common_beginning([tree.prompt for _, tree in group])
    ids: list[int] = list(group[0][1].prompt[:common])
    positions: list[int] = list(range(common))
    tree_of: list[int] = [EVERY] * common
    part_of: list[int] = [PROMPT] * common  # branch number within the tree, or PROMPT
    sources: list[int] = []
    targets: list[int] = []
    branch_of: list[int] = []
    branches: list[tuple[int, int]] = []
    last: list[int] = []
    trees: list[Blocks] = []
    for number, (index, tree) in enumerate(group):
        root = len(tree.prompt) - common
        ids += tree.prompt[common:]
        positions += range(common, len(tree.prompt))
        tree_of += [number] * root
        part_of += [PROMPT] * root
        prompt_end = len(ids) - 1
        sizes: list[int] = []
        for part, branch in enumerate(tree.branches):
            if only is not None and part != only:
                continue
            start = len(ids)
            ids += branch.tokens
            positions += range(len(tree.prompt), len(tree.prompt) + len(branch.tokens))
            tree_of += [number] * len(branch.tokens)
            part_of += [part] * len(branch.tokens)
            for offset in scored_offsets(branch):
                sources.append(start + offset - 1 if offset else prompt_end)
                targets.append(branch.tokens[offset])
                branch_of.append(len(branches))
            branches.append((index, part))
            sizes.append(len(branch.tokens))
            last.append(len(ids) - 1 if branch.tokens else prompt_end)
        trees.append(Blocks(root + sizes[0], ()) if len(sizes) == 1 else Blocks(root, tuple(sizes)))
    plain = len(group) == 1 and len(branches) == 1
    return PackedRow(
        input_ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        mask=None if plain else tree_mask(torch.tensor(tree_of), torch.tensor(part_of)),
        sources=torch.tensor(sources, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        branch_of=torch.tensor(branch_of, dtype=torch.long),
        branches=branches,
        last=torch.tensor(last, dtype=torch.long),
        common=common,
        trees=tuple(trees),
    )


def common_beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens several prompts begin with alike; each keeps at least one of its own."""
    if len(prompts) < 2:
        return 0
    alike = next(
        (place for place, tokens in enumerate(zip(*prompts, strict=False)) if len({*tokens}) > 1),
        min(map(len, prompts)),
    )
    common = min(alike, min(map(len, prompts)) - 1)
    return common if common >= LEAST_COMMON else 0


def scored_offsets(branch: Branch) -> list[int]:
    if branch.scored is None:
        return list(range(len(branch.tokens)))
    return [offset for offset, counts in enumerate(branch.scored) if counts]


def tree_mask(tree_of: Tensor, part_of: Tensor) -> Tensor:
    """May token i look at token j? Not later, in the same tree's prompt or branch or common to all.

    tree_of, part_of: (T,). Returns: (T, T) bool
    """
    order = torch.arange(len(tree_of))
    same_tree = (tree_of[:, None] == tree_of[None, :]) | (tree_of[None, :] == EVERY)
    not_later = order[:, None] >= order[None, :]
    visible = (part_of[None, :] == PROMPT) | (part_of[None, :] == part_of[:, None])
    return same_tree & not_later & visible
