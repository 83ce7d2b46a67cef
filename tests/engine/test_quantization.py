"""Quantized bases must train what full-precision ones train, whatever the processor."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes
import pytest
import torch
from torch import nn

from tests.engine.test_packing import shake
from tests.engine.tiny import events, make_run, preference_row, result
from training.engine import quantization
from training.engine.__main__ import main
from training.engine.batching import Packing, pack
from training.engine.config import AdapterConfig, BaseConfig, OptimConfig
from training.engine.data import Branch, Tree
from training.engine.errors import StepZeroError
from training.engine.generation import generate
from training.engine.logprobs import group_logps, response_logps
from training.engine.models import Base, load_base
from training.engine.quantization import count_layers, held_dequantized
from training.engine.rundir import RunDir
from training.engine.steps import Steps

TREE = Tree(tuple(range(40, 60)), (Branch(tuple(range(60, 75))), Branch(tuple(range(80, 90)))))


def gradients(base: Base) -> list[torch.Tensor]:
    """Of one pair's log-probs, after a pass without gradient as every run makes one."""
    base.add_adapter("policy", AdapterConfig(r=4))
    torch.manual_seed(1)
    parameters = base.train_only("policy")
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.2)
    packing = Packing(512, shared=True)
    with base.use("policy"):
        response_logps(base, [TREE], packing)
        (group,) = pack([TREE], packing)
        group_logps(base, group)[1].sum().backward()
    return [p.grad for p in parameters if p.grad is not None]


def dequantize(base: Base) -> None:
    """Replace every 4-bit layer by a plain one with the same weights."""
    for parent in list(base.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, bitsandbytes.nn.Linear4bit):
                weight = bitsandbytes.functional.dequantize_4bit(
                    layer.weight.data, layer.weight.quant_state
                )
                plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                plain.weight = nn.Parameter(weight.float(), requires_grad=False)
                setattr(parent, name, plain)


def test_nf4_gives_the_gradients_of_its_own_weights(tiny: Path) -> None:
    # bitsandbytes repacks weights for inference on some processors and then has no backward pass.
    asked = BaseConfig(source=str(tiny), quantization="nf4")
    quantized, plain = load_base(asked), load_base(asked)
    dequantize(plain)
    assert count_layers(quantized.model, "nf4") == 14
    assert count_layers(plain.model, "nf4") == 0
    ours, theirs = gradients(quantized), gradients(plain)
    assert len(ours) == len(theirs) == 8
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
        assert a.abs().max() > 0


@pytest.mark.parametrize(
    "base",
    [
        {"quantization": "nf4"},
        {"quantization": "nf4", "double_quant": False},
        {"quantization": "int8"},
        {"dtype": "bfloat16"},
        {"quantization": "nf4", "dtype": "bfloat16"},
    ],
    ids=["nf4", "nf4 single", "int8", "bf16", "nf4 bf16"],
)
def test_dpo_learns_on_it(base: dict[str, object], tiny: Path, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "dpo",
        {
            "method": "dpo",
            "base": {"source": str(tiny), **base},
            "optim": {"lr": 5e-3, "batch_size": 4, "epochs": 2},
        },
        train=[preference_row(n) for n in range(24)],
        test=[preference_row(n) for n in range(100, 108)],
    )
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert result(folder)["metrics"]["dpo/margin_after"] > 0.2
    start = next(event for event in events(folder) if event["kind"] == "start")
    quantization = base.get("quantization")
    assert bool(start["layers_4bit"]) == (quantization == "nf4")
    assert bool(start["layers_8bit"]) == (quantization == "int8")


def test_a_parameter_that_no_gradient_reaches_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", {"method": "dpo", "base": {"source": "demo"}})
    reached, cut = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    run = RunDir(folder, attempt="one")
    steps = Steps(run, {"reached": reached, "cut": cut}, OptimConfig(), total=2)
    (reached * 2).sum().backward()
    with pytest.raises(StepZeroError, match=r"1 of 2 trained parameters .*cut"):
        steps.take()
    torch.testing.assert_close(reached, nn.Parameter(torch.ones(2)))


def test_answers_are_written_with_weights_dequantized_once(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(BaseConfig(source=str(tiny), quantization="nf4"))
    layers = [m for m in base.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    states = torch.randn(3, 5, layers[0].in_features)
    own = layers[0](states)
    prompts = [tuple(range(40, 60)), tuple(range(50, 58))]
    asked = {"max_new_tokens": 6, "temperature": 1.0, "seed": 1}
    with held_dequantized(base.model):
        assert torch.equal(layers[0](states), own)
        assert "forward" in vars(layers[-1])
    once = generate(base, prompts, **asked)
    assert not any("forward" in vars(layer) for layer in layers)

    monkeypatch.setattr(quantization, "available_bytes", lambda: 0)
    with held_dequantized(base.model):
        assert not any("forward" in vars(layer) for layer in layers)
    assert generate(base, prompts, **asked) == once


def test_an_adapter_has_its_say_in_answers_from_a_4_bit_base(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT's layer around a 4-bit one has the same class name, and must go on adding its update."""
    base = load_base(BaseConfig(source=str(tiny), quantization="nf4"))
    base.add_adapter("policy", AdapterConfig(r=4))
    assert count_layers(base.model, "nf4") == 14
    shake(base, "policy")
    prompts = [tuple(range(40, 60)), tuple(range(50, 58))]
    asked = {"max_new_tokens": 6, "temperature": 1.0, "seed": 1}
    bare = generate(base, prompts, **asked)
    with base.use("policy"):
        once = generate(base, prompts, **asked)
        monkeypatch.setattr(quantization, "available_bytes", lambda: 0)
        assert generate(base, prompts, **asked) == once
    assert once != bare


def test_an_interrupt_leaves_layers_as_they_were(tiny: Path) -> None:
    base = load_base(BaseConfig(source=str(tiny), quantization="nf4"))
    before = [vars(module).get("forward") for module in base.model.modules()]
    with pytest.raises(KeyboardInterrupt), held_dequantized(base.model):
        raise KeyboardInterrupt
    assert [vars(module).get("forward") for module in base.model.modules()] == before
