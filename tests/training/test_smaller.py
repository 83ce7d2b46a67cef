"""What is proposed to a run that had too little memory."""

from __future__ import annotations

from typing import Any

import pytest

from training.engine.config import ONLINE_METHODS, from_dict, to_dict
from training.management.commands.launch_round import lay_over
from training.services.presets import STAGES, merged
from training.services.smaller import (
    Change,
    first_step,
    set_arguments,
    smaller_settings,
    with_changes,
)


def engine_config(method: str, **more: Any) -> dict[str, Any]:
    """What a run of this stage is launched with when nothing was asked for."""
    config = merged(method, more) | {"method": method, "base": {"source": "demo"}}
    if method in ONLINE_METHODS:
        config[method]["reward_adapter"] = "/r"
    if method == "evaluate":
        config["evaluate"]["policy_adapter"] = "/p"
    return to_dict(from_dict(config))


def names(changes: list[Change]) -> list[str]:
    return [change.name for change in changes]


def test_what_only_takes_time_comes_first() -> None:
    changes = smaller_settings(engine_config("dpo"))
    assert names(changes) == [
        "row_budget", "gradient_checkpointing", "optim.optimizer", "base.dtype",
        "base.quantization", "data.max_length", "data.max_prompt_length",
    ]  # fmt: skip
    assert [(c.before, c.after) for c in changes[:2]] == [(512, 256), (False, True)]
    assert names(first_step(changes)) == ["row_budget", "gradient_checkpointing"]


def test_ppo_writes_fewer_and_shorter_answers() -> None:
    changes = {c.name: (c.before, c.after) for c in smaller_settings(engine_config("ppo"))}
    assert changes["ppo.episodes_per_update"] == (8, 4)
    assert changes["ppo.eval_prompts"] == (16, 4)
    assert changes["ppo.max_new_tokens"] == (40, 20)
    assert changes["data.max_prompt_length"] == (512, 256)
    # 32 answers are written at once however many an update has: fewer than that is what helps.
    many = smaller_settings(engine_config("ppo", ppo={"episodes_per_update": 128}))
    assert [c.after for c in many if c.name == "ppo.episodes_per_update"] == [16]


def test_trl_takes_a_batch_whole_so_a_smaller_one_helps() -> None:
    kto = {c.name: (c.before, c.after) for c in smaller_settings(engine_config("kto"))}
    assert kto["optim.batch_size"] == (8, 4)
    assert "row_budget" not in kto
    grpo = {c.name: (c.before, c.after) for c in smaller_settings(engine_config("grpo"))}
    assert grpo["grpo.minibatch_size"] == (8, 4)
    assert grpo["grpo.eval_prompts"] == (16, 2)
    assert grpo["grpo.max_new_tokens"] == (40, 20)
    assert "data.max_length" not in grpo


def test_what_never_trains_keeps_its_activations_rule() -> None:
    assert "gradient_checkpointing" not in names(smaller_settings(engine_config("evaluate")))
    assert names(smaller_settings(engine_config("sample"))) == [
        "base.dtype", "base.quantization", "data.max_prompt_length", "sample.max_new_tokens",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"quantization": "nf4"}, {"init_from": "/adapter"}, {"tuning": "full"}],
    ids=["is 4-bit", "has adapter", "is trained itself"],
)
def test_four_bits_are_proposed_only_where_the_base_allows(change: dict[str, Any]) -> None:
    config = engine_config("dpo")
    section = {"quantization": config["base"], "init_from": config["adapter"], "tuning": config}
    section[next(iter(change))].update(change)
    assert "base.quantization" not in names(smaller_settings(config))


@pytest.mark.parametrize("method", sorted(STAGES))
def test_every_proposal_is_a_config_and_in_the_end_nothing_is_left(method: str) -> None:
    config = engine_config(method)
    for _ in range(20):
        changes = smaller_settings(config)
        if not changes:
            break
        for change in changes:
            *parents, last = change.name.split(".")
            place = config
            for parent in parents:
                place = place[parent]
            assert place[last] == change.before
            place[last] = change.after
        config = to_dict(from_dict(config))
    assert changes == []


def test_a_config_of_another_version_gets_no_proposal() -> None:
    assert smaller_settings({"method": "dpo", "optim": {"lr": 1e-4}}) == []
    assert smaller_settings({}) == []


def test_pasted_settings_and_arguments_say_the_same_and_keep_what_was_asked() -> None:
    asked = {"policy": {"optim": {"lr": 1e-5}}, "sft": None, "reward_given": True}
    changes = smaller_settings(engine_config("ppo"))
    pasted = with_changes(asked, stage="policy", changes=changes)
    assert pasted["policy"]["optim"] == {"lr": 1e-5, "optimizer": "adamw_8bit"}
    assert "reward_given" not in pasted
    by_hand: dict[str, Any] = {"policy": {"optim": {"lr": 1e-5}}, "sft": None}
    for argument in set_arguments(stage="policy", changes=changes):
        lay_over(by_hand, argument.removeprefix("--set "))
    assert by_hand == pasted
    assert "base" not in pasted["policy"]
    # What was pasted is what the stage's run then gets.
    launched = merged("ppo", pasted["policy"])
    assert (launched["row_budget"], launched["ppo"]["updates"]) == (256, 8)
    assert with_changes({}, stage="sample_policy", changes=changes).keys() == {"sample"}
    assert asked["reward_given"] is True
