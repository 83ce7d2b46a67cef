"""PPO's parts on a real model: who is trained, what a ratio starts at, where a penalty lands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.advantages import length_mask, masked_mean
from training.engine.batching import Packing, pack
from training.engine.config import AdapterConfig, BaseConfig, OptimConfig
from training.engine.data import PromptRow, prompt_tokens
from training.engine.metrics import METRICS
from training.engine.models import Base, ScalarHead, load_base
from training.engine.ppo import episode_order
from training.engine.ppo_update import update_policy
from training.engine.reward import attach
from training.engine.reward_sources import AdapterReward
from training.engine.rollouts import Begun, Critic, Rollouts, policy_tables, roll_out
from training.engine.rundir import RunDir
from training.engine.steps import Steps

PACKING = Packing(256, shared=True)


@pytest.fixture(scope="module")
def reward_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    config = {"method": "reward", "base": {"source": str(tiny)}, "optim": {"lr": 1e-2}}
    make_run(folder, config, train=[preference_row(n) for n in range(12)])
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


def section(reward_adapter: str, **more: Any) -> dict[str, Any]:
    return {
        "reward_adapter": reward_adapter,
        "updates": 2,
        "episodes_per_update": 6,
        "minibatch_size": 3,
        "max_new_tokens": 8,
        "eval_prompts": 3,
        **more,
    }


def ppo(tiny: Path, reward_adapter: str, **more: Any) -> dict[str, Any]:
    asked = section(reward_adapter, **more)
    return {"method": "ppo", "base": {"source": str(tiny)}, "optim": {"lr": 5e-3}, "ppo": asked}


class Setting:
    """A base with policy (moved away from its start), reward and value, and rollouts of it."""

    def __init__(self, tiny: Path, reward_adapter: str, *, temperature: float = 1.0) -> None:
        self.base = load_base(BaseConfig(source=str(tiny)))
        self.base.add_adapter("policy", AdapterConfig(r=4))
        self.reward_head = attach(self.base, reward_adapter)
        self.critic = Critic(ScalarHead(self.base.hidden_size, std=0.0), None)
        torch.manual_seed(0)
        self.parameters = self.base.train_only("policy")
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.normal_(0.0, 0.1)
        prompts = [
            PromptRow(str(n), messages, prompt_tokens(self.base, messages))
            for n in range(6)
            for messages in [user("Question " + "really? " * n)]
        ]
        self.temperature = temperature
        self.rollouts: Rollouts = roll_out(
            self.base,
            prompts,
            PACKING,
            policy="policy",
            reference=None,
            reward=AdapterReward(self.base, self.reward_head),
            critic=self.critic,
            max_new_tokens=8,
            temperature=temperature,
            seed=3,
        )

    def own_logps(self, index: int, adapter: str | None) -> torch.Tensor:
        """Per-token log-probs of one answer by the model's own logits. Returns: (T,)"""
        tree = self.rollouts.trees[index]
        ids = torch.tensor([tree.prompt + tree.branches[0].tokens])
        with self.base.use(adapter), torch.no_grad():
            logits = self.base.causal(input_ids=ids).logits[0].float() / self.temperature
        start = len(tree.prompt) - 1
        rows = logits[start : start + len(tree.branches[0].tokens)].log_softmax(-1)
        return rows.gather(1, torch.tensor(tree.branches[0].tokens)[:, None]).squeeze(1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_policy_and_reference_are_taken_at_the_sampling_temperature(
    temperature: float, tiny: Path, reward_adapter: str
) -> None:
    setting = Setting(tiny, reward_adapter, temperature=temperature)
    rolled = setting.rollouts
    for index, length in enumerate(rolled.lengths.tolist()):
        for table, adapter in ((rolled.logps, "policy"), (rolled.ref_logps, None)):
            torch.testing.assert_close(
                table[index, :length], setting.own_logps(index, adapter), atol=1e-4, rtol=0
            )
            assert not table[index, length:].any()
    assert (rolled.logps - rolled.ref_logps).abs().max() > 0.1


def test_the_first_ratio_is_one_whatever_rows_an_episode_shares(
    tiny: Path, reward_adapter: str
) -> None:
    # minibatches are packed anew, so sums run in another order: equal to rounding, no more
    setting = Setting(tiny, reward_adapter)
    rolled = setting.rollouts
    width = rolled.logps.shape[1]
    for chosen in ([0], [5, 1], [2, 3, 4]):
        for group in pack([rolled.trees[i] for i in chosen], PACKING):
            with setting.base.use("policy"), torch.no_grad():
                indices, logps, _ = policy_tables(
                    setting.base, setting.critic.head, group, width, 1.0
                )
            rows = [chosen[i] for i in indices]
            ratios = torch.exp(logps - rolled.logps[rows])
            torch.testing.assert_close(ratios, torch.ones_like(ratios), atol=1e-5, rtol=0)


def test_an_update_moves_policy_and_value_and_nothing_else(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    setting = Setting(tiny, reward_adapter)
    folder = make_run(tmp_path / "run", ppo(tiny, reward_adapter), prompts=[])
    run = RunDir(folder)
    named = {f"lora.{i}": p for i, p in enumerate(setting.parameters)}
    named["value"] = setting.critic.head.weight
    steps = Steps(run, named, OptimConfig(lr=1e-2), total=1)
    before = {key: t.detach().clone() for key, t in setting.base.model.named_parameters()}
    head = setting.reward_head.weight.clone()
    mask = setting.rollouts.mask
    torch.manual_seed(1)
    advantages = torch.where(mask, torch.randn(mask.shape), 0.0)
    update_policy(
        setting.base, setting.critic, steps,
        Begun(setting.rollouts, advantages, advantages), PACKING, update=0, carried={}, kept={},
    )  # fmt: skip
    moved = {
        key for key, t in setting.base.model.named_parameters() if not torch.equal(t, before[key])
    }
    assert moved == {key for key in before if ".policy." in key}
    assert setting.critic.head.weight.any()
    torch.testing.assert_close(setting.reward_head.weight, head, atol=0, rtol=0)


def test_a_minibatch_counts_every_token_once_however_it_is_packed(
    tiny: Path, reward_adapter: str
) -> None:
    # the mean over 1 and 7 tokens in two rows is not the mean of two means
    setting = Setting(tiny, reward_adapter)
    lengths = torch.tensor([1, 7])
    values = torch.arange(14.0).view(2, 7)
    mask = length_mask(lengths, 7)
    whole = masked_mean(values, mask)
    parts = [
        masked_mean(values[i : i + 1], mask[i : i + 1]) * mask[i].sum() / lengths.sum()
        for i in (0, 1)
    ]
    torch.testing.assert_close(sum(parts), whole)
    gradients = []
    for budget in (32, 4096):
        packing = Packing(budget, shared=True)
        with setting.base.use("policy"):
            for group in pack(setting.rollouts.trees, packing):
                _, logps, _ = policy_tables(setting.base, None, group, 8, 1.0)
                (logps.sum() / int(setting.rollouts.lengths.sum())).backward()
        gradients.append([p.grad.clone() for p in setting.parameters if p.grad is not None])
        for parameter in setting.parameters:
            parameter.grad = None
    for small, large in zip(*gradients, strict=True):
        torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-3)


def test_an_answer_is_finished_by_its_own_last_token_only(tiny: Path, reward_adapter: str) -> None:
    # pad == EOS here: lengths come from decoding, never from counting what is not padding
    setting = Setting(tiny, reward_adapter)
    rolled = setting.rollouts
    for answer, length, finished in zip(
        rolled.answers, rolled.lengths.tolist(), rolled.finished.tolist(), strict=True
    ):
        assert len(answer.tokens) == length
        assert setting.base.eos_id not in answer.tokens[:-1]
        assert finished == (answer.tokens[-1] == setting.base.eos_id)
        assert finished or length == 8


def test_prompts_are_all_used_before_one_comes_again() -> None:
    from training.engine.config import PPOConfig

    settings = PPOConfig(reward_adapter="x", updates=4, episodes_per_update=3)
    order = [index for update in episode_order(6, settings, seed=1) for index in update]
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))
    assert order[:6] != order[6:]


def test_ppo_from_an_adapter_measures_its_kl_to_that_adapter(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = ppo(tiny, reward_adapter) | {"adapter": {"init_from": reward_adapter}}
    prompts = [{"id": str(n), "prompt": user(f"q {n}")} for n in range(4)]
    folder = make_run(tmp_path / "run", config, prompts=prompts)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert result(folder)["metrics"]["kl/before"] == 0.0


def test_one_prompt_one_token_one_episode(tiny: Path, reward_adapter: str, tmp_path: Path) -> None:
    # a single token has no spread to whiten by, and explains no variance
    config = ppo(tiny, reward_adapter, max_new_tokens=1, episodes_per_update=1, whiten_rewards=True)
    folder = make_run(tmp_path / "run", config, prompts=[{"id": "1", "prompt": user("q")}])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]


def test_every_metric_of_ppo_and_evaluation_is_listed(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    prompts = [{"id": str(n), "prompt": user(f"q {n}")} for n in range(4)]
    trained = make_run(tmp_path / "ppo", ppo(tiny, reward_adapter), prompts=prompts)
    assert main(["run", str(trained)]) == 0
    settings = {
        "reward_adapter": reward_adapter,
        "policy_adapter": str(trained / "adapter"),
        "generate": 3,
        "max_new_tokens": 4,
    }
    config = {"method": "evaluate", "base": {"source": str(tiny)}, "evaluate": settings}
    rows = [preference_row(n) for n in range(4)]
    measured = make_run(tmp_path / "evaluate", config, test=rows)
    assert main(["run", str(measured)]) == 0, result(measured)["reason"]
    for folder in (trained, measured):
        names = {n for e in events(folder) if e["kind"] == "metrics" for n in e["values"]}
        assert names | set(result(folder)["metrics"]) <= set(METRICS)
    for name, sentence in METRICS.items():
        if name.startswith("kl/") and name != "kl/coef":
            assert "estimator k" in sentence, name


def test_settings_that_ppo_would_not_obey_are_refused(
    tiny: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = ppo(tiny, reward_adapter) | {"optim": {"max_steps": 3}}
    folder = make_run(tmp_path / "run", config, prompts=[{"id": "1", "prompt": user("q")}])
    assert main(["run", str(folder)]) == 1
    assert "optim.max_steps" in result(folder)["reason"]


def test_dropout_asked_for_is_on_in_the_passes_that_train(base: Base) -> None:
    base.add_adapter("policy", AdapterConfig(r=4, dropout=0.5))
    parameters = base.train_only("policy")
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.3)
    ids = torch.arange(40, 60)[None]
    with base.use("policy"):
        one, two = (base.hidden(ids, torch.arange(20)[None], None) for _ in range(2))
    assert (one - two).abs().max() > 1e-3
