"""Reading a saved adapter folder: as it is meant, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, TaskType
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.engine.config import AdapterConfig
from training.engine.errors import BaseModelError

#: What a saved adapter may say of itself besides its matrices; anything else changes the model in
#: ways that loading the matrices alone would silently leave out.
PLAIN_LORA: dict[str, tuple[Any, ...]] = {
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, [], ["score"]),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "arrow_config": (None,),
    "init_lora_weights": (None, True, False, "gaussian", "orthogonal", "eva"),
}


def saved_lora(folder: Path, *, asked: AdapterConfig) -> LoraConfig:
    """The LoRA settings of a saved adapter folder. Raises BaseModelError for anything else.

    They hold whatever rank, scale and layers are asked for; a kind of adapter that is asked for
    and that the saved one is not is refused, since it would not be trained.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise BaseModelError(f"{folder} holds no adapter_model.safetensors")
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise BaseModelError(f"{folder}/adapter_config.json cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BaseModelError(f"{folder} is not a LoRA adapter")
    beyond = sorted(
        key for key, plain in PLAIN_LORA.items() if config.get(key) not in (None, *plain)
    )
    if beyond:
        raise BaseModelError(
            f"the adapter in {folder} uses {', '.join(beyond)}, which this engine would get wrong; "
            "LoRA, rsLoRA, DoRA, rank and alpha patterns are supported"
        )
    for kind in ("use_dora", "use_rslora"):
        if getattr(asked, kind) and not config.get(kind):
            raise BaseModelError(
                f"adapter.{kind} is true, and the adapter in {folder} was made without; leave it "
                "out, or start without adapter.init_from"
            )
    try:
        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=config["r"],
            lora_alpha=config["lora_alpha"],
            lora_dropout=0.0,
            target_modules=config["target_modules"],
            exclude_modules=config.get("exclude_modules"),
            layers_to_transform=config.get("layers_to_transform"),
            layers_pattern=config.get("layers_pattern"),
            use_rslora=config.get("use_rslora") or False,
            use_dora=config.get("use_dora") or False,
            rank_pattern=config.get("rank_pattern") or {},
            alpha_pattern=config.get("alpha_pattern") or {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelError(f"{folder}/adapter_config.json is incomplete: {error}") from None


def saved_tensors(folder: Path) -> dict[str, Tensor]:
    """The matrices of a saved adapter folder. Raises BaseModelError where they cannot be read."""
    path = folder / "adapter_model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from None
