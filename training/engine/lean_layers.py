"""Norms and gated units that keep less for the backward pass than autograd does by itself.

Autograd keeps the gate of a SwiGLU unit, its SiLU, and the other factor: three tensors of the
widest layer for every token. Here two are kept, the SiLU is computed again; a norm keeps its input
and one number per token. Forward numbers are the same to the last bit (but for the products, see
`products`), gradients to rounding.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralMLP, MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP, Qwen3RMSNorm

from training.engine.products import project

#: Classes whose forward pass is down(act(gate(x)) · up(x)), and those that are w · x / rms(x).
#: Exactly these: a subclass may compute something else under the same names.
GATED = (LlamaMLP, MistralMLP, Qwen2MLP, Qwen3MLP)
NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up (Shazeer 2020, arXiv 2002.05202), of two tensors of one shape."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return of_gate, silu(gate).mul_(grad)


class RMSNorm(torch.autograd.Function):
    """weight · x / √(mean(x²) + ε) over the last dimension, in fp32, for a frozen weight.

    With r = 1 / √(mean(x²) + ε) and g = grad · weight: d/dx = r·g − x · r³ · mean(g·x).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """states: (…, H). weight: (H,). Returns: (…, H)"""
        exact = states.float()
        scale = torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(states, weight, scale)
        return weight * (exact * scale).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        states, weight, scale = ctx.saved_tensors
        exact = states.float()
        inner = (grad * weight).float()
        shrink = (inner * exact).mean(-1, keepdim=True) * scale.pow(3)
        return inner.mul_(scale).addcmul_(exact, shrink, value=-1.0).to(states.dtype), None, None


def gated_forward(self: Any, x: Tensor) -> Tensor:
    """What the modules of `GATED` compute where their activation is SiLU."""
    gated = SwiGLU.apply(project(self.gate_proj, x), project(self.up_proj, x))
    return project(self.down_proj, gated)


def norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    """What the modules of `NORMS` compute; one whose weight is trained leaves it to autograd."""
    if self.weight.requires_grad:
        output: Tensor = type(self).forward(self, hidden_states)
    else:
        output = RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)
    return output


def keep_less(model: nn.Module) -> None:
    """Have the model's norms and gated units pass through the functions above."""
    for module in model.modules():
        if type(module) in NORMS:
            module.forward = MethodType(norm_forward, module)
        elif type(module) in GATED and isinstance(module.act_fn, nn.SiLU | SiLUActivation):
            module.forward = MethodType(gated_forward, module)
