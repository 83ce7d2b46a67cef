"""How a base's weights are held: bitsandbytes' layers, what they must and must not do.

NF4 with double quantization is QLoRA's layout (Dettmers et al. 2023, arXiv 2305.14314, section 3).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from training.engine.config import BaseConfig
from training.engine.errors import StepZeroError

#: bitsandbytes' layer of each quantization. The class, not its name: PEFT's layer around one has
#: the same name, and holds a weight only as what it wraps does.
LAYERS: dict[str, type[nn.Module]] = {"nf4": Linear4bit, "int8": Linear8bitLt}
#: Weights are held dequantized only where free memory is so many times their size.
ROOM = 4
#: mallopt's name for the size from which on an allocation is a mapping of its own (malloc.h).
M_MMAP_THRESHOLD = -3
#: Bytes from which on tensors are such mappings where a base is quantized.
MAPPED = 1 << 20


def quantization_config(
    config: BaseConfig, *, keep: Sequence[str] | None = None
) -> BitsAndBytesConfig | None:
    """What transformers is asked for; None keeps the weights as they are.

    keep: patterns of names of modules that stay as they are; by default the head alone.
    """
    kept = None if keep is None else list(keep)
    if config.quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=config.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, config.dtype),
            llm_int8_skip_modules=kept,
        )
    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return None


def count_layers(model: nn.Module, quantization: str) -> int:
    """How many layers of the model are held in that quantization."""
    return sum(1 for _ in quantized_layers(model, quantization))


def quantized_layers(model: nn.Module, quantization: str) -> Iterator[Any]:
    """The layers of the model that are held in that quantization, without PEFT's around them."""
    kind = LAYERS.get(quantization)
    return (module for module in model.modules() if kind and isinstance(module, kind))


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
    for layer in quantized_layers(model, "nf4"):
        layer.support_avx512bf16_for_cpu = False


def return_freed_memory() -> None:
    """Have tensors that are freed go back to the system, where the C library can be told (glibc).

    By itself glibc keeps what tensors of up to 32 MB leave behind, and rows of changing lengths
    fit badly into it: a third of a QLoRA step's peak memory was such gaps (measured). The pages
    are asked for anew each time, which costs time, so that it is done for 4-bit bases alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED)


def leave_file(model: nn.Module) -> None:
    """Copy what is not quantized out of the mapped weight file, which is let go with that.

    Embeddings and norms are views of it, and keep all of it in memory that was read to quantize.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


@contextlib.contextmanager
def held_dequantized(model: nn.Module) -> Iterator[None]:
    """Within the block 4-bit layers on a processor compute with weights dequantized once.

    A processor dequantizes a layer's weights at every pass, which for the one token a row of
    decoding is most of the work. The products are the same to the last bit. On a GPU the kernels do
    both at once, and where memory is short the weights stay as they are.
    """
    layers = [
        layer for layer in quantized_layers(model, "nf4") if layer.weight.device.type == "cpu"
    ]
    size = sum(4 * layer.in_features * layer.out_features for layer in layers)
    if size * ROOM > available_bytes():
        layers = []
    try:
        for layer in layers:
            layer.forward = plain_forward(layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def plain_forward(layer: Any) -> Any:
    """What `Linear4bit.forward` computes, on weights that are dequantized here."""
    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)

    def forward(states: Tensor) -> Tensor:
        dtype = getattr(layer, "compute_dtype", None) or states.dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        product = nn.functional.linear(states.to(dtype), weight.to(dtype), bias)
        return product.to(states.dtype)

    return forward


def available_bytes() -> int:
    """Memory that the kernel would give out without swapping; 0 where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return 0
