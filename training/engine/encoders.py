"""Encoders (BERT, RoBERTa, DistilBERT) with transformers' own classification head.

The head is what `AutoModelForSequenceClassification` puts on the encoder: a linear layer with bias,
behind a pooler (BERT) or a layer of its own (RoBERTa, DistilBERT) that reads the first token
(Devlin et al. 2018, arXiv 1810.04805, section 4.1). Texts are padded side by side under an
attention mask; there is no packing, because an encoder's tokens look both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import TaskType
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.engine.classifiers import ADAPTER, Classifier, Text
from training.engine.config import AdapterConfig, BaseConfig, RunConfig
from training.engine.distributed import share
from training.engine.errors import BaseModelError
from training.engine.files import CLASSIFIER
from training.engine.memory import note_imports
from training.engine.models import Base, linear_names, pick_device
from training.engine.quantization import (
    keep_differentiable,
    quantization_config,
    require_quantized,
)
from training.engine.rundir import RunDir
from training.engine.sources import locate, not_loaded
from training.engine.tuning import Trained
from training.engine.whole_models import classifier_text, name_labels, save_whole_model

#: Their modules that belong to the head: never quantized, trained wherever they are new.
HEADS = ("classifier", "pre_classifier", "pooler")
#: What transformers is told of them: patterns of names from their start.
HEAD_NAMES = tuple(f".*{name}" for name in HEADS)


class Encoder(Base):
    """A loaded encoder with its head, its tokenizer and the adapter on it."""

    task_type = None  # PEFT then calls the model as it is, and adds no head of its own

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: BaseConfig,
        *,
        mixed: bool,
        new: Sequence[str],
    ) -> None:
        """new: names of the parameters that the base came without."""
        end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else -1
        super().__init__(model, tokenizer, config, mixed=mixed, eos_id=int(end))
        prefix = model.base_model_prefix + "."
        #: The parameters of the head, by their names in the model: all outside the encoder, and a
        #: pooler that the base came without.
        self.head: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if not name.startswith(prefix) or name in new
        }
        for parameter in self.head.values():
            # trained in fp32, like an adapter, whatever the base is held in
            parameter.data = parameter.data.float()
        for name in self.head_modules:
            model.get_submodule(name).register_forward_pre_hook(in_full_precision)
        last = [name for name in self.head if name.startswith("classifier")][-2:]
        for name in last:  # weight and bias of the output layer, which is the last one
            nn.init.zeros_(self.head[name])

    @property
    def head_modules(self) -> list[str]:
        """The modules of the head that PEFT saves whole, by their names in the model."""
        found: dict[str, None] = {}
        for name in self.head:
            parts = name.split(".")
            found[".".join(parts[: next(i for i, p in enumerate(parts) if p in HEADS) + 1])] = None
        return list(found)

    def add_adapter(
        self, name: str, config: AdapterConfig, *, init_from: str | None = None
    ) -> None:
        """Put a LoRA adapter on the encoder; the head has none, it is trained whole."""
        if init_from is None:
            layers = set(linear_names(self.backbone))
            absent = [each for each in config.target_modules if each not in layers]
            if absent:
                raise BaseModelError(
                    f"the base has no layer {', '.join(absent)}; adapter.target_modules may name "
                    f"{', '.join(sorted(layers))}"
                )
        super().add_adapter(name, config, init_from=init_from)

    def without_adapter(self, targets: Sequence[str]) -> list[str]:
        """Linear layers of head and pooler that an adapter's names (`dense`) would hit too."""
        named = self.causal.named_modules()
        linear = [name for name, module in named if hasattr(module, "in_features")]
        own = [name for name in linear if set(name.split(".")) & set(HEADS)]
        return [name for name in own if name.rpartition(".")[2] in targets]

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask: (B, T). Returns: (B, K)"""
        with self._computing():
            found: Tensor = self.causal(input_ids=input_ids, attention_mask=attention_mask).logits
        return found.float()

    def save_classifier_adapter(self, name: str, folder: Path, beside: Mapping[str, str]) -> None:
        """Write adapter and head in PEFT's format."""
        modules = [module.rpartition(".")[2] for module in self.head_modules]
        self._save(
            name,
            folder,
            self.head,
            task_type=TaskType.SEQ_CLS,
            modules=modules,
            distinct_pad=False,
            beside=beside,
        )


def in_full_precision(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A 16-bit base hands its states to a head in fp32."""
    return tuple(x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)


def load_encoder(config: BaseConfig, run: RunConfig, labels: Sequence[str]) -> Encoder:
    """Load an encoder with a head for these labels. Raises BaseModelError with what to do.

    config: the run's base, a Hub id at its commit. As in `load_base` weights that are trained
    themselves are held in fp32.
    """
    source = locate(config.source)
    dtype = torch.float32 if run.tuning == "full" else getattr(torch, config.dtype)
    named: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **named)
        note_imports()
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            **named,
            num_labels=len(labels),
            # a base that is a classifier already gets a new output layer
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=dtype,
            quantization_config=quantization_config(config, keep=HEAD_NAMES),
            device_map={"": pick_device()},
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(config.source, error) from error
    if tokenizer.pad_token_id is None:
        raise BaseModelError(
            f"the tokenizer of {config.source!r} has no pad token, and an encoder's texts are "
            "padded side by side; set pad_token in its tokenizer_config.json"
        )
    missing = [str(name) for name in info["missing_keys"]]
    other = [str(each[0]) for each in info["mismatched_keys"]]
    lost = [name for name in (*missing, *other) if not set(name.split(".")) & set(HEADS)]
    if lost:
        raise BaseModelError(
            f"the base {config.source!r} lacks {len(lost)} weights of a "
            f"{model.config.model_type} (first: {lost[0]}): is it another kind of model?"
        )
    name_labels(model.config, labels)
    base = Encoder(
        model, tokenizer, config, mixed=dtype != getattr(torch, config.dtype), new=missing
    )
    require_quantized(model, config)
    keep_differentiable(model)
    if run.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    return base


class EncoderClassifier(Classifier):
    """Texts of like length padded side by side, at most `row_budget` tokens at once."""

    base: Encoder

    def __init__(self, run: RunDir, base: Encoder, labels: Sequence[str]) -> None:
        config = run.config
        self.base, self.labels = base, list(labels)
        self._budget = config.row_budget
        head = {f"head.{name}": parameter for name, parameter in base.head.items()}
        if config.tuning == "full":
            named = {f"base.{name}": each for name, each in base.train_all(head=True).items()}
            self.trained, head = Trained(base, None, named), {}
        else:
            base.add_adapter(ADAPTER, config.adapter, init_from=config.adapter.init_from)
            named = {f"lora.{i}": each for i, each in enumerate(base.train_only(ADAPTER))}
            self.trained = Trained(base, ADAPTER, named)
        for parameter in base.head.values():
            parameter.requires_grad_(True)
        self.parameters = self.trained.parameters | head

    def prepare(self, run: RunDir, texts: Sequence[Text]) -> None:
        pass  # padding is all there is to it

    def passes(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], Tensor]]:
        pad = self.base.tokenizer.pad_token_id
        for chosen in padded_groups([len(text) for text in texts], self._budget):
            ids, mask = padded([texts[index] for index in chosen], int(pad))
            device = self.base.device
            yield chosen, self.base.logits(ids.to(device), mask.to(device))

    def save(self, run: RunDir) -> dict[str, str]:
        beside = {CLASSIFIER: classifier_text(self.base.causal.config)}
        return self.trained.write(
            run,
            lambda folder: save_whole_model(self.base, folder),
            lambda name, folder: self.base.save_classifier_adapter(name, folder, beside),
        )


def padded_groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of this process's texts, in groups that take at most `budget` tokens when padded (a
    longer text gets its own group). The longest go first, so that little is padding."""
    groups: list[list[int]] = []
    for index in sorted(share(lengths), key=lambda index: (-lengths[index], index)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def padded(texts: Sequence[Text], pad: int) -> tuple[Tensor, Tensor]:
    """(input_ids, attention_mask) of texts padded behind: (B, T) each"""
    longest = max(map(len, texts))
    ids = [[*text, *[pad] * (longest - len(text))] for text in texts]
    mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return torch.tensor(ids), torch.tensor(mask)
