"""PPO against a closed form: a bandit with a KL to its reference has one known best policy.

One prompt, answers of one token, a fixed reward r(y) for each: max E[r] − β KL(π ‖ π_ref) is had
by π* ∝ π_ref exp(r/β), with the value J* = β log Σ π_ref exp(r/β) (Korbak et al. 2022, arXiv
2205.11275, section 3). The whole of a run is used: rollouts, scores, GAE, clipped updates.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tests.engine.tiny import assistant, make_run, result, save_words, user
from training.engine.__main__ import main
from training.engine.batching import Packing
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.data import Branch, Tree, prompt_tokens
from training.engine.models import load_base
from training.engine.reward import attach, tree_scores

BETA = 1.0


def test_a_run_of_ppo_reaches_the_best_policy_of_a_bandit(tmp_path: Path) -> None:
    # the last states have norm √32, so the weights' size bounds how far apart two logits can be
    words = save_words(tmp_path / "words", words=4, initializer_range=0.3)
    source = {"base": {"source": str(words)}, "threads": 1}
    rows = [
        {
            "id": f"{n}-{m}",
            "prompt": user("w0"),
            "chosen": assistant(f"w{n}"),
            "rejected": assistant(f"w{m}"),
        }
        for n in range(4)
        for m in range(n)
    ]
    rewards = {"method": "reward", "optim": {"lr": 2e-2, "epochs": 10}, **source}
    scored = make_run(tmp_path / "reward", rewards, train=rows)
    assert main(["run", str(scored)]) == 0, result(scored)["reason"]
    reward_adapter = str(scored / "adapter")
    trained = make_run(
        tmp_path / "ppo",
        {
            "method": "ppo",
            "optim": {"lr": 2e-2, "adam_eps": 1e-5, "warmup_ratio": 0.0},
            "checkpoint_every_s": 0.0,
            **source,
            "ppo": {
                "reward_adapter": reward_adapter, "updates": 100, "episodes_per_update": 512,
                "samples_per_prompt": 256, "minibatch_size": 256, "epochs": 2,
                "max_new_tokens": 1, "kl_coef": BETA, "missing_eos_penalty": 0.0,
                "eval_prompts": 1,
            },
        },
        prompts=[{"id": "1", "prompt": user("w0")}],
    )  # fmt: skip
    assert main(["run", str(trained)]) == 0, result(trained)["reason"]

    base = load_base(BaseConfig(source=str(words)))
    head = attach(base, reward_adapter)
    base.add_adapter("policy", AdapterConfig(), init_from=str(trained / "adapter"))
    prompt = prompt_tokens(base, user("w0"))
    arms = Tree(prompt, tuple(Branch((token,)) for token in range(len(base.tokenizer))))
    with base.use("reward"):
        (r,) = tree_scores(base, head, [arms], Packing(256, shared=True)).double()
    with torch.no_grad():
        ids = torch.tensor([prompt])
        reference = base.causal(input_ids=ids).logits[0, -1].double().log_softmax(0)
        with base.use("policy"):
            policy = base.causal(input_ids=ids).logits[0, -1].double().log_softmax(0)
    best = (reference + r / BETA).log_softmax(0)
    best_value = BETA * torch.logsumexp(reference + r / BETA, 0)

    def value(logps: torch.Tensor) -> torch.Tensor:
        return (logps.exp() * (r - BETA * (logps - reference))).sum()

    def distance(logps: torch.Tensor) -> float:
        return float(0.5 * (logps.exp() - best.exp()).abs().sum())

    # far from where it starts, or reaching it would show nothing
    assert distance(reference) > 0.3
    assert value(reference) < 0.7 * best_value
    torch.testing.assert_close(value(best), best_value)
    assert abs(float(value(policy) / best_value) - 1.0) < 0.02
    assert distance(policy) <= 0.02
