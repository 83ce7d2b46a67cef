"""Frozen products, with and without an adapter, on the kernel of this processor."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from training.engine.products import Frozen, LowRank, project


class Layered(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 40, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        output: Tensor = self.layer(states)
        return output


def adapted(bias: bool = False, **options: object) -> nn.Module:
    """A linear layer under an adapter that changes something."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["layer"], **options)  # type: ignore[arg-type]
    layer = get_peft_model(Layered(bias), config).base_model.model.layer  # type: ignore[arg-type, union-attr]
    assert isinstance(layer, nn.Module)
    for name, parameter in layer.named_parameters():
        if ".lora_B." in f".{name}":
            nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["frozen", "adapted", "adapter off", "DoRA", "trained"])
def test_values_and_gradients_are_the_layers_own(kind: str, bias: bool) -> None:
    layer = adapted(bias, use_dora=kind == "DoRA")
    if kind == "adapter off":
        layer.enable_adapters(False)  # type: ignore[operator]
    if kind in ("frozen", "trained"):
        layer = nn.Linear(24, 40, bias=bias).requires_grad_(kind == "trained")
    states = torch.randn(2, 7, 24, requires_grad=True)
    weights = torch.randn(2, 7, 40)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def with_gradients(output: Tensor) -> list[Tensor]:
        asked = [states, *trained]
        got = torch.autograd.grad((output * weights).sum(), asked, allow_unused=True)
        return [output, *(torch.zeros(()) if each is None else each for each in got)]

    found = with_gradients(project(layer, states))
    expected = with_gradients(layer(states))
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-5)


def test_the_functions_are_used_where_they_are_right_and_nowhere_else() -> None:
    def made_by(layer: nn.Module, states: Tensor) -> str:
        node = project(layer, states).grad_fn
        while node is not None and "View" in node.name():  # reshaping around it
            node = node.next_functions[0][0]
        return "" if node is None else node.name()

    states = torch.randn(3, 24, requires_grad=True)
    frozen = nn.Linear(24, 40).requires_grad_(False)
    assert made_by(frozen, states) == f"{Frozen.__name__}Backward"
    assert made_by(adapted(), states) == f"{LowRank.__name__}Backward"
    dropping = adapted(lora_dropout=0.5)
    for other in (nn.Linear(24, 40), adapted(use_dora=True), dropping):
        assert made_by(other, states) not in ("FrozenBackward", "LowRankBackward")
    with torch.autocast("cpu", torch.bfloat16):
        assert made_by(frozen, states) != "FrozenBackward"
