"""Packed rows must say exactly what plain rows say, and adapters must not leak."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.engine.tiny import save_tiny
from training.engine.batching import Packing, pack
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.data import Branch, Tree, prompt_tokens, response_tokens
from training.engine.logprobs import group_logps, packing_error, response_logps
from training.engine.models import Base, ScalarHead, load_base
from training.engine.reward import tree_scores

LORA = AdapterConfig(r=4)


def trees(base: Base, n: int = 5) -> list[Tree]:
    return [
        Tree(
            prompt_tokens(base, [{"role": "user", "content": f"Tell me about {'it ' * i}?"}]),
            (
                Branch(response_tokens(base, f"yes {i} " * (i + 1))),
                Branch(response_tokens(base, "no")),
            ),
        )
        for i in range(n)
    ]


def shake(base: Base, name: str) -> None:
    """Give a fresh adapter weights that change something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in base.parameters(name):
            parameter.normal_(0.0, 0.2)


def test_packed_equals_plain(base: Base) -> None:
    assert packing_error(base, trees(base)) < 1e-4


def test_the_budget_bounds_rows_and_changes_nothing(base: Base) -> None:
    asked = trees(base)
    rows = [row for group in pack(asked, Packing(160, shared=True)) for row in group]
    assert len(rows) > 1
    assert all(len(row.input_ids) <= 160 for row in rows)
    small = response_logps(base, asked, Packing(160, shared=True))
    large = response_logps(base, asked, Packing(4096, shared=True))
    torch.testing.assert_close(small, large, atol=1e-4, rtol=0)


def test_log_probs_equal_transformers_own(base: Base) -> None:
    tree = trees(base, 1)[0]
    ids = torch.tensor([tree.prompt + tree.branches[0].tokens])
    with torch.no_grad():
        logps = base.causal(input_ids=ids).logits[0].float().log_softmax(-1)
    start = len(tree.prompt)
    wanted = sum(logps[start - 1 + i, t].item() for i, t in enumerate(tree.branches[0].tokens))
    ours = response_logps(base, [tree], Packing(512, shared=True))[0, 0].item()
    assert abs(ours - wanted) < 1e-3


def test_the_fused_gradient_equals_autograd(base: Base) -> None:
    base.add_adapter("policy", LORA)
    shake(base, "policy")
    parameters = base.train_only("policy")
    tree = trees(base, 1)
    with base.use("policy"):
        (group,) = pack(tree, Packing(512, shared=True))
        group_logps(base, group)[1].sum().backward()
        fused = [p.grad.clone() for p in parameters if p.grad is not None]
        for p in parameters:
            p.grad = None
        total = torch.zeros(())
        for branch in tree[0].branches:
            ids = torch.tensor([tree[0].prompt + branch.tokens])
            logps = base.causal(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(tree[0].prompt)
            for i, token in enumerate(branch.tokens):
                total = total + logps[start - 1 + i, token]
        total.backward()
    plain = [p.grad for p in parameters if p.grad is not None]
    assert len(fused) == len(plain) > 0
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_sliding_window_is_noticed(tmp_path: Path) -> None:
    base = load_base(BaseConfig(source=str(save_tiny(tmp_path / "m", sliding_window=8))))
    assert packing_error(base, trees(base, 2)) > 1e-3


def test_switching_leaves_every_requires_grad_as_it_was(base: Base) -> None:
    for name in ("policy", "reward"):
        base.add_adapter(name, LORA)
    base.train_only("policy")
    before = {n: p.requires_grad for n, p in base.model.named_parameters()}
    with base.use("reward"), base.use(None), base.use("policy"):
        assert {n: p.requires_grad for n, p in base.model.named_parameters()} == before
    assert {n: p.requires_grad for n, p in base.model.named_parameters()} == before
    assert sum(before.values()) == len(base.parameters("policy"))


def test_adapter_off_equals_a_base_of_its_own(base: Base, tiny: Path) -> None:
    base.add_adapter("policy", LORA)
    shake(base, "policy")
    packing = Packing(512, shared=True)
    with base.use("policy"):
        moved = response_logps(base, trees(base), packing)
    with base.use(None):
        off = response_logps(base, trees(base), packing)
    other = load_base(BaseConfig(source=str(tiny)))
    torch.testing.assert_close(off, response_logps(other, trees(other), packing), atol=1e-5, rtol=0)
    assert (moved - off).abs().max() > 0.1


def test_scores_do_not_depend_on_the_batch(base: Base) -> None:
    torch.manual_seed(0)
    head = ScalarHead(base.hidden_size, std=1.0)
    asked = trees(base)
    packing = Packing(1024, shared=True)
    together = tree_scores(base, head, asked, packing)
    alone = torch.cat([tree_scores(base, head, [tree], packing) for tree in asked])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_finished_answer_scores_apart_from_a_cut_one(base: Base) -> None:
    # pad == EOS on this tokenizer: whoever infers the last position from the pad id cannot tell.
    assert base.tokenizer.pad_token_id == base.eos_id
    torch.manual_seed(0)
    head = ScalarHead(base.hidden_size, std=1.0)
    tree = trees(base, 1)[0]
    whole = tree.branches[0].tokens
    pair = Tree(tree.prompt, (Branch(whole), Branch(whole[:-1])))
    finished, cut = tree_scores(base, head, [pair], Packing(512, shared=True))[0].tolist()
    assert abs(finished - cut) > 1e-3
