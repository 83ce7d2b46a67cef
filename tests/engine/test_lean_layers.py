"""Norms and gated units that keep less compute what the classes they stand in for compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from training.engine.lean_layers import keep_less

CONFIG = LlamaConfig(hidden_size=24, intermediate_size=40, num_attention_heads=4)


def gradients(module: nn.Module, states: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What the module makes of the states, and the gradient that reaches them."""
    output = module(states)
    (gradient,) = torch.autograd.grad((output * weights).sum(), states)
    return output.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["mlp", "norm"])
def test_outputs_are_equal_and_gradients_close(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module: nn.Module = LlamaMLP(CONFIG) if kind == "mlp" else LlamaRMSNorm(24)
    if kind == "norm":
        nn.init.normal_(module.weight)
    module.to(dtype).requires_grad_(False)
    states = torch.randn(1, 7, 24, dtype=dtype, requires_grad=True)
    weights = torch.randn(1, 7, 24, dtype=dtype)
    plain = gradients(module, states, weights)
    keep_less(module)
    ours = gradients(module, states, weights)
    assert "forward" in vars(module)
    if kind == "norm" or dtype != torch.float32:  # products may be another kernel's
        assert torch.equal(ours[0], plain[0])
    bound = 1e-5 if dtype == torch.float32 else 5e-2
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize("kind", ["mlp", "norm"])
def test_less_is_kept_for_the_backward_pass(kind: str) -> None:
    module: nn.Module = LlamaMLP(CONFIG) if kind == "mlp" else LlamaRMSNorm(24)
    module.requires_grad_(False)

    def kept() -> int:
        """Numbers kept for the backward pass, each stored tensor once."""
        stored: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            stored[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = module(torch.randn(1, 50, 24, requires_grad=True))
        assert output.requires_grad
        return sum(stored.values())

    before = kept()
    keep_less(module)
    assert kept() <= before
    if kind == "mlp":
        assert before - kept() == 50 * 40


def test_a_norm_that_is_trained_has_a_gradient() -> None:
    norm = LlamaRMSNorm(24)
    keep_less(norm)
    norm(torch.randn(2, 24)).square().sum().backward()
    assert norm.weight.grad is not None


def test_other_classes_are_left_alone() -> None:
    class Doubled(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return 2.0 * super().forward(hidden_states)

    module = nn.ModuleList([Doubled(24), LlamaMLP(LlamaConfig(hidden_act="gelu"))])
    keep_less(module)
    assert not any("forward" in vars(each) for each in module)
