"""PPO's options on a model of a few words: each does what it says, and resumes to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.test_resume import curve, killed_after
from tests.engine.tiny import assistant, events, make_run, result, save_words, user
from training.engine.__main__ import main
from training.engine.batching import Packing, pack
from training.engine.config import AdapterConfig, BaseConfig, from_dict
from training.engine.data import PromptRow, prompt_tokens
from training.engine.errors import ConfigError
from training.engine.models import ScalarHead, load_base
from training.engine.ppo import add_critic, trained
from training.engine.reward import attach
from training.engine.reward_sources import AdapterReward
from training.engine.rollouts import Begun, Critic, policy_tables, roll_out, value_table
from training.engine.rundir import RunDir

PROMPTS = [{"id": str(n), "prompt": user(f"w{n} " * (1 + n))} for n in range(5)]
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("models") / "words")


@pytest.fixture(scope="module")
def reward_adapter(words: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    config = {"method": "reward", "base": {"source": str(words)}, "adapter": {"r": 3}}
    config["optim"] = {"lr": 2e-2, "epochs": 4}
    rows = [
        {
            "id": str(n),
            "prompt": user(f"w{n}"),
            "chosen": assistant("w1 w2"),
            "rejected": assistant("w3 w4 w5"),
        }
        for n in range(8)
    ]
    make_run(folder, config, train=rows)
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


def asked(words: Path, reward_adapter: str, **more: Any) -> dict[str, Any]:
    return {
        "method": "ppo",
        "base": {"source": str(words)},
        "optim": {"lr": 2e-2, "schedule": "constant"},
        "threads": 1,
        "checkpoint_every": 1,
        "checkpoint_keep": 0,
        "ppo": {
            "reward_adapter": reward_adapter,
            "updates": 3,
            "episodes_per_update": 6,
            "minibatch_size": 3,
            "epochs": 2,
            "max_new_tokens": 5,
            "eval_prompts": 3,
            **more,
        },
    }


def checkpointed(folder: Path) -> dict[int, dict[str, torch.Tensor]]:
    """The tensors of every checkpoint, by its step."""
    return {
        int(path.parent.name.removeprefix("step-")): load_file(path)
        for path in folder.glob("attempts/*/checkpoints/step-*/tensors.safetensors")
    }


def ends_the_same(whole: Path, cut: Path) -> None:
    assert main(["run", str(cut)]) == 0, result(cut)["reason"]
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert curve(cut) == curve(whole)
    for name in ("metrics", "steps", "stopped"):
        assert result(cut)[name] == result(whole)[name]


@pytest.mark.parametrize(
    "options",
    [
        {"samples_per_prompt": 3, "update_kl_stop": 0.02, "kl_budget": 100.0, "dual_clip": 3.0},
        {"value": "own_adapter", "critic_warmup_updates": 1, "samples_per_prompt": 2,
         "minibatch_size": 2, "kl_target": 0.1, "kl_horizon": 30},
    ],
)  # fmt: skip
def test_a_run_killed_within_or_between_updates_ends_the_same(
    options: dict[str, Any], words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    whole = make_run(tmp_path / "whole", asked(words, reward_adapter, **options), prompts=PROMPTS)
    assert main(["run", str(whole)]) == 0, result(whole)["reason"]
    assert sorted(curve(whole)) == [1, 2, 3]
    steps = sorted(checkpointed(whole))
    for step in (steps[len(steps) // 2], steps[-2]):
        ends_the_same(whole, killed_after(whole, step, tmp_path / f"cut-{step}"))


def test_answers_to_one_prompt_are_one_tree_and_score_as_if_they_were_alone(
    words: Path, reward_adapter: str
) -> None:
    base = load_base(BaseConfig(source=str(words)))
    base.add_adapter("policy", AdapterConfig(r=4))
    head = attach(base, reward_adapter)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters("policy"):
            parameter.normal_(0.0, 0.2)
    critic = Critic(ScalarHead(base.hidden_size, std=1.0), None)
    prompts = [
        PromptRow(row["id"], row["prompt"], prompt_tokens(base, row["prompt"])) for row in PROMPTS
    ]

    def rolled(packing: Packing) -> Any:
        return roll_out(
            base, prompts, packing, policy="policy", reference=None,
            reward=AdapterReward(base, head), critic=critic, max_new_tokens=5, temperature=1.0,
            seed=1, samples_per_prompt=3,
        )  # fmt: skip

    shared, plain = rolled(Packing(64, shared=True)), rolled(Packing(64, shared=False))
    assert [len(tree.branches) for tree in shared.trees] == [3] * 5
    assert shared.rows([4, 0]) == [12, 13, 14, 0, 1, 2]
    assert [(a.prompt, a.sample) for a in shared.answers][:4] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert len({answer.tokens for answer in shared.answers}) > 5
    for name in ("scores", "logps", "ref_logps", "values"):
        one, two = getattr(shared, name), getattr(plain, name)
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
        assert one.unique().numel() > 5
    # what a checkpoint holds gives the same answers and trees back
    ones = torch.ones_like(shared.logps)
    tensors = Begun(shared, ones, ones).tensors()
    tensors = {key.removeprefix("rollout/"): tensor for key, tensor in tensors.items()}
    back = type(shared).restored(tensors, prompts)
    assert (back.answers, back.trees) == (shared.answers, shared.trees)
    # an answer's tokens are in its own line, whatever row its tree is in
    for group in pack([shared.trees[index] for index in (3, 1)], Packing(512, shared=True)):
        with base.use("policy"), torch.no_grad():
            lines, logps, _ = policy_tables(base, None, group, shared.logps.shape[1], 1.0)
        rows = shared.rows([3, 1])
        torch.testing.assert_close(logps, shared.logps[[rows[i] for i in lines]], atol=1e-5, rtol=0)


def test_the_reference_is_what_a_second_untouched_base_would_say(
    words: Path, reward_adapter: str
) -> None:
    base, copy = (load_base(BaseConfig(source=str(words))) for _ in range(2))
    base.add_adapter("policy", AdapterConfig(r=4))
    head = attach(base, reward_adapter)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters("policy"):
            parameter.normal_(0.0, 0.2)
    prompts = [PromptRow("1", user("w1"), prompt_tokens(base, user("w1")))]
    rolled = roll_out(
        base, prompts, Packing(64, shared=True), policy="policy", reference=None,
        reward=AdapterReward(base, head), max_new_tokens=5, temperature=1.0, seed=1,
    )  # fmt: skip
    (group,) = pack(rolled.trees, Packing(64, shared=True))
    with torch.no_grad():
        _, logps, _ = policy_tables(copy, None, group, rolled.logps.shape[1], 1.0)
    torch.testing.assert_close(rolled.ref_logps, logps, atol=1e-5, rtol=0)
    assert (rolled.logps - logps).abs().max() > 0.05


@pytest.mark.parametrize("value", ["shared_head", "own_adapter"])
def test_a_warm_up_trains_the_value_and_leaves_the_policy_as_it_was(
    value: str, words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(words, reward_adapter, value=value, critic_warmup_updates=2)
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    tensors = checkpointed(folder)
    policy = [name for name in tensors[1] if name.startswith("parameter/lora.")]
    values = [name for name in tensors[1] if name.startswith("parameter/value")]
    assert len(values) == (1 if value == "shared_head" else 1 + len(policy))
    # 4 optimizer steps an update: 8 of warm-up, then 4
    assert sorted(tensors) == list(range(1, 13))
    for name in policy:
        assert all(torch.equal(tensors[step][name], tensors[1][name]) for step in range(2, 9))
        assert not torch.equal(tensors[12][name], tensors[1][name])
    # the matrix that a fresh adapter has at zero is still there, and with it the reference
    assert any(not tensors[8][name].any() for name in policy)
    for name in values:
        assert not torch.equal(tensors[8][name], tensors[1][name])
    first, second, third = (curve(folder)[update] for update in (1, 2, 3))
    assert "loss/policy" not in first
    assert "loss/policy" in third
    assert second["kl/to_reference"] == pytest.approx(0.0, abs=1e-5)


def test_the_value_adapter_starts_as_the_reward_adapter_and_keeps_its_gradient_to_itself(
    words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(words, reward_adapter, value="own_adapter")
    run = RunDir(make_run(tmp_path / "run", config, prompts=PROMPTS))
    ppo = run.config.ppo
    assert ppo is not None
    base = load_base(run.base)
    base.add_adapter("policy", run.config.adapter)
    reward_head = attach(base, reward_adapter)
    critic = add_critic(run, base, ppo)
    named = trained(base, critic)
    pairs = zip(base.parameters("value"), base.parameters("reward"), strict=True)
    assert all(torch.equal(own, given) for own, given in pairs)
    assert torch.equal(critic.head.weight, reward_head.weight)
    prompts = [PromptRow("1", user("w1"), prompt_tokens(base, user("w1")))]
    rolled = roll_out(
        base, prompts, Packing(64, shared=True), policy="policy", reference=None,
        reward=AdapterReward(base, reward_head), critic=critic, max_new_tokens=5, temperature=1.0,
        seed=1,
    )  # fmt: skip
    # it is the reward model, read at every token: at the last one it tells the score so far
    assert rolled.values.any()
    (group,) = pack(rolled.trees, Packing(64, shared=True))
    with base.use("value"):
        _, values = value_table(base, critic.head, group, rolled.logps.shape[1], frozen=False)
        values.sum().backward()
    assert all(
        (parameter.grad is not None) == name.startswith("value")
        for name, parameter in named.items()
    )
    torch.testing.assert_close(values.detach(), rolled.values, atol=1e-5, rtol=0)


def test_a_policy_beyond_its_budget_is_given_back_as_it_last_was_within(
    words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(words, reward_adapter, kl_coef=0.0)
    free = make_run(tmp_path / "free", config, prompts=PROMPTS)
    assert main(["run", str(free)]) == 0
    # the KL that begins each of 3 updates, of 4 optimizer steps each; the last is beyond the limit
    kls = [curve(free)[update]["kl/to_reference"] for update in (1, 2, 3)]
    limit = (max(kls[:2]) + kls[2]) / 2
    assert max(kls[:2]) < limit < kls[2], "choose other settings: this KL does not rise"
    config["ppo"]["kl_budget"] = limit
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0
    found = result(folder)
    assert found["status"] == "done"
    assert (found["steps"], found["rows"]) == (2, 12)
    assert (found["stopped"]["by"], found["stopped"]["after_updates"]) == ("kl_budget", 2)
    assert found["stopped"]["kept_updates"] == 1
    assert f"{kls[2]:.4g} nats" in found["stopped"]["why"]
    assert "kl_budget" in [e["code"] for e in events(folder) if e["kind"] == "warning"]
    # the second update began with the policy of one update: 4 optimizer steps
    kept = load_file(folder / WEIGHTS)
    then = {name: t for name, t in checkpointed(free)[4].items() if "parameter/lora" in name}
    assert {t.numpy().tobytes() for t in kept.values()} == {
        t.numpy().tobytes() for t in then.values()
    }
    # killed inside the last update, and at its end, where the checkpoint is of the policy beyond
    for step in (6, 8):
        ends_the_same(folder, killed_after(folder, step, tmp_path / f"cut-{step}"))


def test_the_budget_holds_for_what_the_last_update_made(
    words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(words, reward_adapter, kl_coef=0.0, updates=2)
    free = make_run(tmp_path / "free", config, prompts=PROMPTS)
    assert main(["run", str(free)]) == 0
    rolled, measured = curve(free)[2]["kl/to_reference"], result(free)["metrics"]["kl/after"]
    config["ppo"]["kl_budget"] = (rolled + measured) / 2
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0
    found = result(folder)
    assert rolled < measured
    assert (found["stopped"]["after_updates"], found["stopped"]["kept_updates"]) == (2, 1)
    assert found["metrics"]["kl/after"] < measured


def test_an_update_ends_before_the_step_that_would_go_on_too_far(
    words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(words, reward_adapter, epochs=8, updates=1)
    free = make_run(tmp_path / "free", config, prompts=PROMPTS)
    assert main(["run", str(free)]) == 0
    assert curve(free)[1]["update/passes"] == 8.0
    config["ppo"]["update_kl_stop"] = curve(free)[1]["kl/update"] / 2
    cut = make_run(tmp_path / "cut", config, prompts=PROMPTS)
    assert main(["run", str(cut)]) == 0
    passes = curve(cut)[1]["update/passes"]
    assert 0.0 < passes < 8.0
    # 2 minibatches a pass: so many steps were taken, and they are those of the run without a stop
    taken = round(2 * passes)
    assert max(checkpointed(cut)) == taken
    kept, same = checkpointed(cut)[taken], checkpointed(free)[taken]
    assert all(torch.equal(kept[name], same[name]) for name in kept if "parameter" in name)


def test_one_of_two_budgets_may_stop_a_run() -> None:
    config = asked(Path("base"), "adapter", kl_budget=4.0)
    stop = {"alarms": {"kl_budget": "stop", "kl_budget_nats": 9.0}}
    with pytest.raises(ConfigError, match=r"ppo\.kl_budget is 4 and alarms\.kl_budget is 'stop'"):
        from_dict(config | stop)
    for alarms in ({}, {"kl_budget": "warn"}, {"kl_budget": "off"}, {"length_drift": "stop"}):
        from_dict(config | {"alarms": alarms})
    from_dict(asked(Path("base"), "adapter") | stop)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward_adapter": None}, "exactly one"),
        ({"reward_url": "http://localhost:1/"}, "exactly one"),
        ({"samples_per_prompt": 4}, "ppo.episodes_per_update is 6"),
        ({"samples_per_prompt": 2}, "ppo.minibatch_size is 3"),
        ({"value": "copy"}, "ppo.value"),
        ({"critic_warmup_updates": 3}, "ppo.critic_warmup_updates"),
        ({"kl_budget": 0.0}, "ppo.kl_budget"),
        ({"update_kl_stop": -1.0}, "ppo.update_kl_stop"),
        ({"dual_clip": 1.1}, "ppo.dual_clip"),
        ({"reward_url_retries": 1}, "ppo.reward_url"),
        ({"reward_model_revision": "main"}, "ppo.reward_model_revision"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    config = asked(Path("base"), "adapter")
    config["ppo"] |= changes
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        from_dict(config)
