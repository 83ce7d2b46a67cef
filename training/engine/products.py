"""Products with frozen weights on whichever of PyTorch's two kernels is faster on this processor.

In fp32 PyTorch multiplies with MKL, whose kernels for AMD's processors reach 0.85 of what oneDNN's
do (Zen 4, 300 to 2,000 rows, measured); PyTorch carries both. The choice depends on the processor
alone, so that a run that is resumed computes the same numbers to the last bit.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


@functools.cache
def prefers_onednn() -> bool:
    """Whether fp32 products are faster in oneDNN here: on AMD's processors, on Linux."""
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            vendor = next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return False
    return "AuthenticAMD" in vendor


def times(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·Wᵀ + b without gradient. states: (N, I). weight: (O, I). Returns: (N, O)"""
    in_fp32 = states.dtype == weight.dtype == torch.float32
    if states.device.type == "cpu" and in_fp32 and len(states) and prefers_onednn():
        output: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return output
    return linear(states, weight, bias)


class Frozen(torch.autograd.Function):
    """x·Wᵀ + b with W and b frozen: nothing is kept for the way back but W."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """states: (…, I). weight: (O, I). bias: (O,). Returns: (…, O)"""
        ctx.save_for_backward(weight)
        flat = states.flatten(0, -2)
        return times(flat, weight, bias).unflatten(0, states.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        return times(flat, weight.t()).unflatten(0, grad.shape[:-1]), None, None


class LowRank(torch.autograd.Function):
    """x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ with W and b frozen (Hu et al. 2021, arXiv 2106.09685)."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        """states: (…, I). weight: (O, I). bias: (O,). down: (r, I). up: (O, r). Returns: (…, O)"""
        flat = states.flatten(0, -2)
        inner = flat @ down.t()
        output = times(flat, weight, bias).addmm_(inner, up.t(), alpha=scaling)
        ctx.save_for_backward(flat, inner, weight, down, up)
        ctx.scaling, ctx.shape = scaling, states.shape
        return output.unflatten(0, states.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, weight, down, up = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        of_inner = (grad @ up).mul_(ctx.scaling)
        of_up = (grad.t() @ inner).mul_(ctx.scaling) if ctx.needs_input_grad[4] else None
        of_down = of_inner.t() @ flat if ctx.needs_input_grad[3] else None
        of_states = None
        if ctx.needs_input_grad[0]:
            of_states = times(grad, weight.t()).addmm_(of_inner, down).view(ctx.shape)
        return of_states, None, None, of_down, of_up, None


def project(layer: nn.Module, states: Tensor) -> Tensor:
    """What a linear layer makes of the states, an adapter's update included.

    Frozen layers on a processor go through the functions above. states: (…, I). Returns: (…, O)
    """
    found: Tensor
    if states.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        if type(layer) is nn.Linear and frozen(layer, states):
            found = Frozen.apply(states, layer.weight, layer.bias)
            return found
        if type(layer) is LoraLinear and (name := lone_adapter(layer, states)) is not None:
            base: Any = layer.base_layer
            found = LowRank.apply(
                states,
                base.weight,
                base.bias,
                layer.lora_A[name].weight,
                layer.lora_B[name].weight,
                layer.scaling[name],
            )
            return found
    found = layer(states)
    return found


def frozen(layer: nn.Linear, states: Tensor) -> bool:
    biased = layer.bias is not None and layer.bias.requires_grad
    return not layer.weight.requires_grad and not biased and layer.weight.dtype == states.dtype


def lone_adapter(layer: LoraLinear, states: Tensor) -> str | None:
    """The one active adapter, if it is LoRA as published, on frozen weights, in one type."""
    if layer.disable_adapters or layer.merged or type(layer.base_layer) is not nn.Linear:
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or names[0] in layer.lora_variant or not frozen(layer.base_layer, states):
        return None
    (name,) = names
    down, up = layer.lora_A[name], layer.lora_B[name]
    known = isinstance(layer.lora_dropout[name], nn.Identity) and down.bias is up.bias is None
    return name if known and down.weight.dtype == up.weight.dtype == states.dtype else None
