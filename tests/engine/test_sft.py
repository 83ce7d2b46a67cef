"""Fine-tuning: conversations packed side by side do not see each other, and only answers count."""

from __future__ import annotations

import torch

from tests.engine.tiny import assistant, user
from training.engine.batching import Packing, pack
from training.engine.data import Branch, Tree, conversation_tree
from training.engine.logprobs import states_at, token_logps
from training.engine.models import Base

TURNS = [
    user("one?") + assistant("yes") + user("sure?") + assistant("yes indeed, I am"),
    user("What of two, and of all that follows it?") + assistant("no"),
    [{"role": "system", "content": "Be brief."}, *user("three"), *assistant("three it is")],
]


def trees_of(base: Base) -> list[Tree]:
    found = [conversation_tree(base, turns, "row") for turns in TURNS]
    assert all(found)
    return [tree for tree in found if tree is not None]


@torch.no_grad()
def logps_of(base: Base, trees: list[Tree]) -> dict[int, torch.Tensor]:
    """Log-probs of every scored token, by conversation."""
    found = {}
    for group in pack(trees, Packing(2048, shared=True)):
        for row in group:
            logps = token_logps(base, row, states_at(base, row, row.sources))
            for number, (tree, _) in enumerate(row.branches):
                found[tree] = logps[row.branch_of == number]
    return found


def test_a_conversation_costs_the_same_alone_and_packed(base: Base) -> None:
    trees = trees_of(base)
    together = logps_of(base, trees)
    for number, tree in enumerate(trees):
        alone = logps_of(base, [tree])[0]
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-5)


def test_what_stands_beside_a_conversation_changes_nothing_in_it(base: Base) -> None:
    trees = trees_of(base)
    other = Tree(trees[0].prompt[::-1], (Branch(trees[0].branches[0].tokens[::-1]),))
    before, after = logps_of(base, trees), logps_of(base, [other, *trees[1:]])
    for number in (1, 2):
        torch.testing.assert_close(before[number], after[number], atol=1e-5, rtol=1e-5)
    assert len(before[0]) != len(after[0])


def test_only_answers_count_and_each_with_its_end(base: Base) -> None:
    for turns, tree in zip(TURNS, trees_of(base), strict=True):
        (row,) = pack([tree], Packing(2048, shared=True))[0]
        wanted: list[int] = []
        for turn in turns:
            if turn["role"] == "assistant":
                wanted += base.tokenizer(turn["content"])["input_ids"] + [base.eos_id]
        assert row.targets.tolist() == wanted


def test_an_end_of_turn_inside_a_prompt_is_seen_although_it_is_the_pad(base: Base) -> None:
    # a mask made of "token != pad" would hide it, and every log-prob behind it would move
    assert base.eos_id == base.tokenizer.pad_token_id
    (tree, _, _) = trees_of(base)
    ids = torch.tensor([tree.prompt + tree.branches[0].tokens])
    assert base.eos_id in tree.prompt
    ours = logps_of(base, [tree])[0].sum()
    with torch.no_grad():
        logits = base.causal(input_ids=ids).logits[0, :-1].log_softmax(-1)
        hidden = base.causal(input_ids=ids, attention_mask=ids != base.eos_id)
    scored = torch.tensor([False] * len(tree.prompt) + list(tree.branches[0].scored or ()))[1:]

    def total(table: torch.Tensor) -> torch.Tensor:
        return table.gather(1, ids[0, 1:, None]).squeeze(1)[scored].sum()

    torch.testing.assert_close(ours, total(logits), atol=1e-4, rtol=1e-5)
    assert abs(ours - total(hidden.logits[0, :-1].log_softmax(-1))) > 0.01
