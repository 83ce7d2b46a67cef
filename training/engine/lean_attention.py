"""Decoder layers for packed rows: fewer passes over memory, and a last layer for few tokens.

What the known classes compute, with two differences. Heads are rotated in three passes instead of
five. And the last layer computes queries and everything behind attention only for the tokens whose
states are read: a reward model reads one token of an answer, so that of its last layer only keys
and values are left.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer

from training.engine.attention import IMPLEMENTATION, Layout, by_blocks
from training.engine.products import project

#: Layers that compute x + attention(norm(x)), then x + mlp(norm(x)), and their attention: rotated
#: queries and keys, which Qwen3 gives a norm before. Exactly these, as in `lean_layers`.
DECODERS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)
ATTENTIONS = (LlamaAttention, MistralAttention, Qwen2Attention, Qwen3Attention)


class Rotation(torch.autograd.Function):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves as pairs.

    (x₁, x₂) becomes (x₁·cos − x₂·sin, x₂·cos + x₁·sin); the gradient is rotated back.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """heads: (B, T, heads, D). cos, sin: (B, T, 1, D), both halves alike.

        Returns: (B, T, heads, D)
        """
        ctx.save_for_backward(cos, sin)
        return rotated(heads, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotated(grad, cos, sin, -1.0), None, None


def rotated(heads: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    half = heads.shape[-1] // 2
    turned = heads * cos
    turned[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-direction)
    turned[..., half:].addcmul_(heads[..., :half], sin[..., half:], value=direction)
    return turned


def layer_forward(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **options: Any,
) -> Tensor:
    """What the layers of `DECODERS` compute, for rows with a layout: (1, T, H) to (1, T, H).

    The last layer: to (1, n, H), the states of the tokens that the layout asks for.
    """
    layout: Layout | None = getattr(attention_mask, "tree_layout", None)
    if layout is None or position_embeddings is None or options.get("past_key_values") is not None:
        output: Tensor = type(self).forward(
            self,
            hidden_states,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            **options,
        )
        return output
    wanted = layout.wanted if self.is_last else None
    attention = self.self_attn
    normed = self.input_layernorm(hidden_states)
    asking, residual = normed, hidden_states
    if wanted is not None:
        asking, residual = normed[:, wanted], hidden_states[:, wanted]
    size = attention.head_dim
    query = project(attention.q_proj, asking).unflatten(-1, (-1, size))
    key = project(attention.k_proj, normed).unflatten(-1, (-1, size))
    value = project(attention.v_proj, normed).unflatten(-1, (-1, size))
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    cos, sin = (each[:, :, None] for each in position_embeddings)
    key = Rotation.apply(key, cos, sin)
    if wanted is not None:
        cos, sin = cos[:, wanted], sin[:, wanted]
    query = Rotation.apply(query, cos, sin)
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    seen = by_blocks(query, key, value, layout, attention.scaling, asked=wanted is not None)
    states = residual + project(attention.o_proj, seen.flatten(2))
    return states + self.mlp(self.post_attention_layernorm(states))


def take_trees(model: PreTrainedModel) -> None:
    """Have the model's layers pass rows with a layout through `layer_forward`, if all are known."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, DECODERS)]
    known = all(type(each) in DECODERS and type(each.self_attn) in ATTENTIONS for each in layers)
    if known and model.config._attn_implementation == IMPLEMENTATION:
        for layer in layers:
            layer.is_last = layer is layers[-1]
            layer.forward = MethodType(layer_forward, layer)
