"""AdamW in the forms a device has, and its state as tensors that a checkpoint takes.

bitsandbytes' 8-bit forms hold both moments in blocks of 256 with a scale each (Dettmers et al.
2022, arXiv 2110.02861, section 2); tensors of fewer than 4,096 values keep theirs in fp32. Paged
forms let the driver move moments to the processor's memory while the device's is full (Dettmers et
al. 2023, arXiv 2305.14314, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import bitsandbytes
import torch
from torch import Tensor, nn

from training.engine.config import OptimConfig
from training.engine.errors import ConfigError

#: bitsandbytes' class of each `optim.optimizer` beyond PyTorch's own AdamW.
CLASSES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: OptimConfig
) -> torch.optim.Optimizer:
    """The optimizer that `config` names. Raises ConfigError where the device does not have it."""
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    if config.optimizer != "adamw":
        device = parameters[0].device.type
        if config.optimizer.startswith("paged") and device == "cpu":
            # bitsandbytes would take its unpaged form instead, and only warn
            raise ConfigError(
                f"optim.optimizer is {config.optimizer!r}, and this machine has no GPU with memory "
                "to be paged; allowed here: adamw, adamw_8bit"
            )
        kind = getattr(bitsandbytes.optim, CLASSES[config.optimizer])
    made: torch.optim.Optimizer = kind(
        list(parameters),
        lr=config.lr,  # type: ignore[call-arg]
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
    )
    return made


def moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> Iterator[tuple[str, Tensor]]:
    """(key/parameter's name, tensor) of the whole state: moments, their scales and maps, steps."""
    for name, parameter in named.items():
        for key, value in optimizer.state[parameter].items():
            if not isinstance(value, Tensor):
                value = torch.tensor(value)
            # every parameter names the same map, and no file takes one tensor under two names
            yield f"{key}/{name}", value.clone() if key.startswith("qmap") else value


def restore_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]
) -> None:
    """Put back what `moments` gave; a parameter that had no state gets none."""
    by_name: dict[str, dict[str, Tensor]] = {name: {} for name in named}
    for place, value in saved.items():
        key, name = place.split("/", 1)
        by_name[name][key] = value
    for index, (name, parameter) in enumerate(named.items()):
        state = by_name[name]
        if not state:
            optimizer.state[parameter] = {}
        elif isinstance(optimizer, bitsandbytes.optim.optimizer.Optimizer2State):
            # it lays out its own state, which may be in paged memory, and that is filled in place
            optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
            own = optimizer.state[parameter]
            for key, value in state.items():
                own[key] = int(value) if key == "step" else own[key].copy_(value)
        else:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
