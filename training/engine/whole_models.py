"""Whole models in transformers' own format: fully trained ones, and adapters merged into a base."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from training.engine.errors import BaseModelError
from training.engine.files import cannot_write, publish_folder, require_space, write_file
from training.engine.models import Base, ScalarHead, as_json

#: Room beside the weights of a model folder: the tokenizer and the JSON files.
SPARE_BYTES = 32_000_000


def empty_classifier(base: Base, *, heads: int = 1, labels: Sequence[str] = ()) -> PreTrainedModel:
    """A sequence classifier of the base's architecture, a label per head; it holds no memory yet.

    labels: their names, where they have some.

    Raises BaseModelError where transformers has none, or none with a head like ours.
    """
    config = type(base.causal.config).from_dict(base.causal.config.to_dict())
    config.num_labels = heads
    if labels:
        name_labels(config, labels)
    config.pad_token_id = base.distinct_pad_id()
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise BaseModelError(
            f"a sequence classifier (which a reward model is too) cannot be made of this base: "
            f"{error}"
        ) from error
    score = getattr(model, "score", None)
    if getattr(score, "bias", None) is not None or not hasattr(score, "weight"):
        raise BaseModelError(
            "a sequence classifier (which a reward model is too) cannot be made of this base: "
            f"{type(model).__name__} has no score head of one matrix, so others could not read it"
        )
    return model


def name_labels(config: PretrainedConfig, labels: Sequence[str]) -> None:
    """Write the classes into a model's config, where stock transformers looks for them."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"


def classifier_text(config: PretrainedConfig) -> str:
    """config.json of a classifier, to lie beside its adapter: how the base was held while it was
    trained is left out, since stock transformers would take the base's file for quantized."""
    plain = config.to_dict()
    plain.pop("quantization_config", None)
    return json.dumps(plain, indent=2, sort_keys=True, default=as_json) + "\n"


def save_whole_model(
    base: Base,
    folder: Path,
    *,
    head: ScalarHead | None = None,
    labels: Sequence[str] = (),
    beside: Mapping[str, str] = {},
) -> None:
    """Write the base's weights, config, tokenizer and template as one folder; beside, then renamed.

    With a head it is a reward model that stock `AutoModelForSequenceClassification` scores with: it
    pools at the right-most token that is not padding, hence the padding of `save_reward_adapter`.
    labels: names of the head's numbers, where it is a classifier's. beside: further text files by
    name.
    """
    model = base.causal
    if head is not None:
        model = empty_classifier(base, heads=len(head.weight), labels=labels)
        setattr(model, model.base_model_prefix, base.backbone)
        score: torch.nn.Linear = model.score  # type: ignore[assignment]
        score.weight = torch.nn.Parameter(head.weight.detach().to(base.causal.dtype))
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    written = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        require_space(folder.parent, size + SPARE_BYTES, f"saving the model {folder.name}")
        model.save_pretrained(written)
        base.save_tokenizer(written, distinct_pad=head is not None)
        for name, text in beside.items():
            write_file(written / name, text)
        publish_folder(written, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error, size) from error
    finally:
        shutil.rmtree(written, ignore_errors=True)
