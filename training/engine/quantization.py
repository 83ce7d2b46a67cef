"""How a base's weights are held: bitsandbytes' layers, what they must and must not do.

NF4 with double quantization is QLoRA's layout (Dettmers et al. 2023, arXiv 2305.14314, section 3).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from training.engine.config import BaseConfig
from training.engine.errors import StepZeroError

#: bitsandbytes' layer of each quantization.
LAYERS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


def quantization_config(config: BaseConfig) -> BitsAndBytesConfig | None:
    """What transformers is asked for; None keeps the weights as they are."""
    if config.quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=config.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        )
    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return None


def count_layers(model: nn.Module, quantization: str) -> int:
    """How many layers of the model are held in that quantization."""
    return sum(type(module).__name__ == LAYERS.get(quantization) for module in model.modules())


def require_quantized(model: nn.Module, config: BaseConfig) -> None:
    """Raise StepZeroError where a quantization was asked for and no layer has it."""
    if config.quantization in LAYERS and not count_layers(model, config.quantization):
        raise StepZeroError(
            f"{config.quantization} was asked for, but no layer of the base is held in it"
        )


def keep_differentiable(model: nn.Module) -> None:
    """Keep 4-bit layers in the layout that has a backward pass.

    On processors with AVX512-BF16 bitsandbytes 0.50.2 repacks a layer's weights for inference at
    its first pass without gradient (Linear4bit.forward), for good, and the kernel for that layout
    has no backward: every later training pass loses its gradients without a word, and computes in
    bf16 whatever was asked. A reference pass before training is enough to trigger it.
    """
    for module in model.modules():
        if type(module).__name__ == LAYERS["nf4"]:
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
