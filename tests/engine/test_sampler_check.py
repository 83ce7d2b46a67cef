"""A run whose answers are written by another policy than the one it trains must not begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from tests.engine.test_ppo import ppo
from tests.engine.test_trl_trainers import asked as online
from tests.engine.tiny import events, make_run, preference_row, result, user
from training.engine import generation, sampler_check
from training.engine.__main__ import main
from training.engine.quantization import held_dequantized

METHODS = ("ppo", "grpo", "rloo")
PROMPTS = [{"id": str(n), "prompt": user(f"Question {'really ' * n}?")} for n in range(5)]

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def reward_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    config = {"method": "reward", "base": {"source": str(tiny)}, "optim": {"lr": 1e-2}}
    make_run(folder, config, train=[preference_row(n) for n in range(12)])
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


@pytest.fixture
def make(tiny: Path, reward_adapter: str, tmp_path: Path) -> Make:
    def build(method: str, **base: Any) -> Path:
        if method == "ppo":
            config = ppo(tiny, reward_adapter, updates=1)
        else:
            config = online(method, tiny, reward_adapter, updates=1)
        config["base"] |= base
        return make_run(tmp_path / method, config, prompts=PROMPTS)

    return build


@contextmanager
def base_alone(model: nn.Module) -> Iterator[None]:
    """What once happened under 4 bits: while answers are written, adapters add nothing."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [layer._disable_adapters for layer in layers]
    with held_dequantized(model):
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, flag in zip(layers, before, strict=True):
                layer._disable_adapters = flag


def check_of(folder: Path) -> dict[str, Any]:
    (found,) = [event for event in events(folder) if event["kind"] == "sampler_check"]
    return found


@pytest.mark.parametrize(
    ("method", "base"),
    [*((method, {}) for method in METHODS), ("ppo", {"quantization": "nf4"}),
     ("ppo", {"dtype": "bfloat16"})],
)  # fmt: skip
def test_sampler_and_training_pass_agree(method: str, base: dict[str, Any], make: Make) -> None:
    folder = make(method, **base)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    found = check_of(folder)
    assert found["difference"] <= found["largest"]
    assert found["difference"] < (1e-4 if "dtype" not in base else found["bound"])
    assert found["effect"] >= 3 * found["bound"]
    kinds = [event["kind"] for event in events(folder)]
    assert kinds.index("sampler_check") < kinds.index("metrics")
    assert not [e for e in events(folder) if e.get("code") == "sampler_unproven"]


@pytest.mark.parametrize(
    ("method", "base"),
    [*((method, {}) for method in METHODS), ("ppo", {"quantization": "nf4"}),
     ("grpo", {"dtype": "bfloat16"})],
)  # fmt: skip
def test_a_sampler_that_passes_the_adapter_over_is_refused(
    method: str, base: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the adapter is fresh and adds nothing yet: only moved by noise can it be missed
    monkeypatch.setattr(generation, "held_dequantized", base_alone)
    folder = make(method, **base)
    assert main(["run", str(folder)]) == 1
    assert "answers are written by another policy" in result(folder)["reason"]
    assert check_of(folder)["difference"] > check_of(folder)["bound"]


def test_the_noise_is_gone_to_the_bit() -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.zeros(4))]
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad(), sampler_check.moved(parameters, 0.1, seed=3):
        assert not any(map(torch.equal, parameters, before))
    assert all(map(torch.equal, parameters, before))
