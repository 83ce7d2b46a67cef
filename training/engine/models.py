"""Bases, quantization, adapters and heads: every decision about weights and devices is made here.

One quantized base carries all adapters; switching adapters switches the model. Two rules hold
everywhere: never two active adapters (PEFT adds them up), and a switch leaves every `requires_grad`
flag as it was (PEFT's own `set_adapter` does not).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.engine.attention import IMPLEMENTATION, Blocks, layout_of, with_layout
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.errors import BaseModelError
from training.engine.files import cannot_write, publish_folder, require_space
from training.engine.lean_attention import take_trees
from training.engine.lean_layers import keep_less
from training.engine.memory import note_imports
from training.engine.quantization import (
    keep_differentiable,
    leave_file,
    quantization_config,
    require_quantized,
    return_freed_memory,
)
from training.engine.saved_adapters import saved_lora, saved_tensors
from training.engine.sources import locate, not_loaded, refuse_wordless


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Base:
    """A loaded base with its tokenizer and the adapters on it."""

    #: What PEFT is told to put an adapter on.
    task_type: TaskType | None = TaskType.CAUSAL_LM

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: BaseConfig,
        *,
        mixed: bool = False,
        eos_id: int | None = None,
    ) -> None:
        """mixed: the weights are held in fp32, and only computed with in the config's dtype.

        eos_id: the token that ends a text; by default what ends an answer (`turn_end`).
        """
        self.model: PreTrainedModel | PeftModel = model
        self.tokenizer = tokenizer
        self.config = config
        self.device = next(model.parameters()).device
        self.dtype = getattr(torch, config.dtype)
        self.mixed = mixed
        #: Whether each of several processes holds a part of every layer (`sharding`).
        self.in_parts = False
        self.adapters: list[str] = []
        self.active: str | None = None
        self.eos_id = turn_end(model, tokenizer) if eos_id is None else eos_id
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for module in model.modules():
            # preference losses compare two passes, which dropout would blur
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 0.0  # type: ignore[assignment]
        model.eval()

    @property
    def causal(self) -> PreTrainedModel:
        """The causal language model under the adapters."""
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(inner, PreTrainedModel)  # noqa: S101 - narrows the type
        return inner

    @property
    def backbone(self) -> nn.Module:
        """The transformer without its language-model head."""
        backbone: nn.Module = getattr(self.causal, self.causal.base_model_prefix)
        return backbone

    @property
    def positions(self) -> int | None:
        """How many tokens the base has positions for; None where it does not say."""
        return usable_positions(self.causal.config)

    @property
    def hidden_size(self) -> int:
        return int(self.causal.config.hidden_size)

    def head_weight(self) -> Tensor:
        """The language-model head. Shape: (V, H)"""
        weight: Tensor = self.causal.get_output_embeddings().weight
        return weight

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        mask: Tensor | None,
        trees: Sequence[Blocks] = (),
        *,
        common: int = 0,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of rows under the active adapter.

        input_ids, position_ids: (B, T). mask: (B, 1, T, T) bool, True where a token may look, or
        None for plain causal attention. trees: what the mask says as blocks, where it is of trees,
        behind `common` tokens that all of them begin with. wanted: (n,) the tokens whose states
        are asked for, ascending. Returns: (B, T, H), or (B, n, H)
        """
        if mask is not None:
            # as numbers, once for all layers: each would make its own of a boolean one, and keep it
            unseen = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device)
            mask = unseen.masked_fill_(~mask, -torch.inf)
            if trees and mask.device.type == "cpu":  # where a kernel's start costs next to nothing
                layout = layout_of(trees, self.dtype, mask.device, common=common, wanted=wanted)
                mask = with_layout(mask, layout)
        with self._computing():
            states: Tensor = self.backbone(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=mask,
                use_cache=False,
            ).last_hidden_state
        if wanted is not None and states.shape[1] == input_ids.shape[1]:
            states = states[:, wanted]  # a last layer that computes all of them
        return states.float() if self.mixed else states

    def _computing(self) -> contextlib.AbstractContextManager[Any]:
        if self.mixed:
            return torch.autocast(self.device.type, self.dtype)
        return contextlib.nullcontext()

    def add_adapter(
        self, name: str, config: AdapterConfig, *, init_from: str | None = None
    ) -> None:
        """Put a LoRA adapter on the base, fresh (it changes nothing yet) or from a saved folder."""
        lora = LoraConfig(
            task_type=self.task_type,
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.target_modules),
            exclude_modules=self.without_adapter(config.target_modules) or None,
            use_dora=config.use_dora,
            use_rslora=config.use_rslora,
        )
        if init_from is not None:
            lora = saved_lora(Path(init_from), asked=config)
            lora.task_type = self.task_type
        if lora.use_dora and self.config.quantization == "int8":
            raise BaseModelError(
                "a DoRA adapter needs the norms of the base's weights, and PEFT cannot read those "
                "of int8 layers before their first pass; use base.quantization nf4 or none"
            )
        try:
            if isinstance(self.model, PeftModel):
                self.model.add_adapter(name, lora)
            else:
                self.model = get_peft_model(self.model, lora, adapter_name=name)
        except ValueError as error:
            raise BaseModelError(f"the adapter does not fit the base: {error}") from error
        self._expect_layers(name, lora)
        self.adapters.append(name)
        if init_from is not None:
            self.load_adapter_weights(name, Path(init_from))
        for parameter in self.parameters(name):
            parameter.requires_grad_(False)
        self._activate(name)
        self._activate(None)

    def without_adapter(self, targets: Sequence[str]) -> list[str]:
        """Layers of these names that get no adapter all the same."""
        return []

    def _expect_layers(self, name: str, lora: LoraConfig) -> None:
        """Raise BaseModelError for layers that would be left out, or trained without effect."""
        layers = [key for key, m in self.causal.named_modules() if name in getattr(m, "lora_A", ())]
        wanted = lora.target_modules
        names = [] if isinstance(wanted, str) or wanted is None else sorted(wanted)
        absent = [
            each for each in names if not any(f".{key}".endswith(f".{each}") for key in layers)
        ]
        if absent:
            raise BaseModelError(
                f"the base has no layer {', '.join(absent)}; adapter.target_modules may name "
                f"{', '.join(linear_names(self.causal))}"
            )
        if hasattr(self.causal.get_output_embeddings(), "lora_A"):
            raise BaseModelError(
                "an adapter on the language-model head would change nothing here: scores are read "
                "through the base's own head; leave it out of adapter.target_modules"
            )

    def load_adapter_weights(self, name: str, folder: Path) -> None:
        """Fill adapter `name` from a PEFT folder. Raises BaseModelError where shapes differ."""
        saved = saved_tensors(folder)
        own = dict(self._named(name))
        lora = {key: value for key, value in saved.items() if ".lora_" in key}
        if set(lora) != set(own) or any(lora[key].shape != own[key].shape for key in own):
            raise BaseModelError(f"the adapter in {folder} was not made for this base")
        with torch.no_grad():
            for key, value in lora.items():
                own[key].copy_(value)

    def _named(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """(name as PEFT saves it, parameter) of one adapter: LoRA's matrices, DoRA's magnitudes."""
        for key, parameter in self.model.named_parameters():
            if f".{name}." in key and ".lora_" in key:
                saved = key.replace(f".{name}.", ".")
                yield saved.replace("magnitude_vector.weight", "magnitude_vector"), parameter

    def parameters(self, name: str) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named(name)]

    def scaling(self, name: str | None) -> list[float]:
        """What each layer of an adapter multiplies its update by; empty for the bare base."""
        layers = (getattr(module, "scaling", None) for module in self.model.modules())
        return [each[name] for each in layers if isinstance(each, dict) and name in each]

    def train_only(self, *names: str) -> list[nn.Parameter]:
        """Make the named adapters the only ones with gradients; returns their parameters."""
        for other in self.adapters:
            for parameter in self.parameters(other):
                parameter.requires_grad_(other in names)
        return [parameter for name in names for parameter in self.parameters(name)]

    def train_all(self, *, head: bool) -> dict[str, nn.Parameter]:
        """Give every weight of a base without adapters a gradient; returns them by name.

        head: whether the language-model head is trained too (a reward model has none); one that is
        tied to the embeddings is trained with them either way.
        """
        assert not self.adapters  # noqa: S101 - the config refuses both
        trained: nn.Module = self.causal if head else self.backbone
        for parameter in trained.parameters():
            parameter.requires_grad_(True)
        return dict(trained.named_parameters())

    @contextlib.contextmanager
    def use(self, name: str | None) -> Iterator[None]:
        """Within the block adapter `name` is the model (None: the bare base)."""
        before = self.active
        self._activate(name)
        try:
            yield
        finally:
            self._activate(before)

    def _activate(self, name: str | None) -> None:
        if not isinstance(self.model, PeftModel):
            if name is not None:
                raise BaseModelError(f"there is no adapter {name!r}")
            return
        flags = [(p, p.requires_grad) for key in self.adapters for p in self.parameters(key)]
        tuner: Any = self.model.base_model
        if name is None:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            tuner.set_adapter(name)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        self.active = name

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write adapter `name` in PEFT's format, beside and then renamed, with the tokenizer."""
        self._save(name, folder, {}, task_type=TaskType.CAUSAL_LM)

    def save_reward_adapter(
        self, name: str, head: ScalarHead, folder: Path, *, beside: Mapping[str, str] = {}
    ) -> None:
        """Write an adapter with its head, which stock PEFT scores or classifies with.

        beside: further text files by name: reward_scale.json where scores are more than the head's
        number, config.json where its outputs have names.

        `AutoModelForSequenceClassification` pools at the right-most token that is not padding, so
        the saved tokenizer pads with a token that is not the end of a turn: otherwise a finished
        answer and a cut one would get the same score.
        """
        score = {"score.weight": head.weight}
        self._save(name, folder, score, task_type=TaskType.SEQ_CLS, beside=beside)

    def _save(
        self,
        name: str,
        folder: Path,
        head: Mapping[str, Tensor],
        *,
        task_type: TaskType,
        modules: Sequence[str] = ("score",),
        distinct_pad: bool = True,
        beside: Mapping[str, str] = {},
    ) -> None:
        """head: trained tensors beside LoRA's, by their names in the model; they are of `modules`.
        distinct_pad: where there is a head, save the tokenizer with a pad that ends no turn."""
        assert isinstance(self.model, PeftModel)  # noqa: S101 - an adapter exists
        state = get_peft_model_state_dict(self.model, adapter_name=name)
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items() if ".lora_" in k}
        extra = {
            f"base_model.model.{key}": tensor.detach().float().cpu().contiguous()
            for key, tensor in head.items()
        }
        size = sum(t.numel() * t.element_size() for t in [*tensors.values(), *extra.values()])
        require_space(folder.parent, 2 * size + 32_000_000, f"saving the adapter {folder.name}")
        config = self.model.peft_config[name].to_dict()
        config["task_type"] = task_type.value
        config["inference_mode"] = True
        config["base_model_name_or_path"] = self.config.source
        config["modules_to_save"] = [*modules] if extra else None
        written = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            written.mkdir()
            save_file({**tensors, **extra}, written / "adapter_model.safetensors")
            text = json.dumps(config, indent=2, sort_keys=True, default=as_json)
            (written / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
            for file, content in beside.items():
                (written / file).write_text(content, encoding="utf-8")
            self.save_tokenizer(written, distinct_pad=bool(extra) and distinct_pad)
            shutil.rmtree(folder, ignore_errors=True)  # of this attempt, started a second time
            publish_folder(written, folder)
        except (OSError, SafetensorError) as error:
            raise cannot_write(folder, error, size) from error
        finally:
            shutil.rmtree(written, ignore_errors=True)

    def save_tokenizer(self, folder: Path, *, distinct_pad: bool) -> None:
        """Write the tokenizer and its template; distinct_pad: padding with no end of turn."""
        pad = self.tokenizer.pad_token
        if distinct_pad:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.distinct_pad_id())
        self.tokenizer.save_pretrained(folder)
        self.tokenizer.pad_token = pad

    def distinct_pad_id(self) -> int:
        """A token id that pads without being an end of turn."""
        ids = [self.tokenizer.pad_token_id, self.tokenizer.unk_token_id]
        ids += [*self.tokenizer.all_special_ids, 0]
        return next(int(i) for i in ids if i is not None and i != self.eos_id)


def usable_positions(config: Any) -> int | None:
    """How many tokens a model has positions for; RoBERTa counts them from behind its pad's id."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    if found is not None and config.model_type == "roberta":
        return found - config.pad_token_id - 1
    return found


def as_json(value: Any) -> Any:
    """What json cannot write in a PEFT config: its enums and sets."""
    return sorted(value) if isinstance(value, set) else getattr(value, "value", str(value))


def linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of all linear layers, sorted."""
    layers = [key for key, module in model.named_modules() if hasattr(module, "in_features")]
    return sorted({key.rpartition(".")[2] for key in layers} - {"default", "lm_head"})


def turn_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer: what the chat template writes behind one, else the EOS.

    On Gemma or Phi-3 the two differ, and a model taught to end with its EOS would never write the
    end that everybody else's template waits for. Raises BaseModelError where there is neither.
    """
    special = set(tokenizer.all_special_ids)
    special |= {key for key, token in tokenizer.added_tokens_decoder.items() if token.special}
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
    if tokenizer.chat_template is not None:
        with contextlib.suppress(TemplateError):
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
            behind = tokenizer(text.rpartition("ANSWER")[2], add_special_tokens=False)["input_ids"]
            for token in behind:
                if token in special:
                    return int(token)
    named = [tokenizer.eos_token_id, model.config.eos_token_id]
    for each in named:
        if each is not None:
            return int(each[0] if isinstance(each, list) else each)
    raise BaseModelError(
        "the base names no end-of-sequence token: an answer could not end; set eos_token in its "
        "tokenizer_config.json, or choose an instruct model"
    )


class ScalarHead(nn.Module):
    """One number per hidden state, without bias: a reward's score or a PPO value."""

    def __init__(self, hidden_size: int, *, std: float) -> None:
        """Weights are N(0, std); std 0 gives zeros."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden_size).normal_(0.0, std))

    def forward(self, states: Tensor) -> Tensor:
        """states: (N, H). Returns: (N,)"""
        return (states.float() @ self.weight.t()).squeeze(-1)


def load_base(
    config: BaseConfig,
    *,
    gradient_checkpointing: bool = False,
    tuning: str = "lora",
    device: torch.device | None = None,
    turns: bool = True,
) -> Base:
    """Load tokenizer and weights as `config` says. Raises BaseModelError with what to do.

    turns: whether conversations are read, which takes a chat template.

    Weights that are trained themselves (tuning full) are held in fp32 whatever the compute type:
    bf16 has 8 bits of precision, so that a step of 0.2 % of a weight or less would round to none.
    """
    source = locate(config.source)
    refuse_wordless(source)
    device = device or pick_device()
    dtype = torch.float32 if tuning == "full" else getattr(torch, config.dtype)
    if config.quantization == "nf4":
        return_freed_memory()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        note_imports()
        model = AutoModelForCausalLM.from_pretrained(
            source,
            revision=config.revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            quantization_config=quantization_config(config),
            device_map={"": device},
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(config.source, error) from error
    if turns and tokenizer.chat_template is None:
        raise BaseModelError(
            f"the tokenizer of {config.source!r} has no chat template, so turns cannot be told "
            "apart; choose an instruct model, or put a chat_template.jinja beside the tokenizer"
        )
    base = Base(model, tokenizer, config, mixed=dtype != getattr(torch, config.dtype))
    require_quantized(model, config)
    if config.quantization == "nf4":
        leave_file(model)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(IMPLEMENTATION)
    keep_differentiable(model)
    keep_less(model)
    take_trees(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    return base
