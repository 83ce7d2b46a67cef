"""Adapter plus base as one whole model: the update is added to the weights, in fp32.

An adapter that was trained through 4-bit weights (QLoRA) has learnt to work with what quantization
left of them. Merged into the base's own weights it meets others; merged into the dequantized ones
it meets its own, but quantizing the result once more changes it again, since sums are not on the
4-bit grid. So both are lossy, and how much is measured here on a text.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from peft import PeftModel
from torch import Tensor

from training.engine.config import AdapterConfig, BaseConfig
from training.engine.data import prompt_tokens, response_tokens
from training.engine.errors import BaseModelError, ConfigError, RunFolderError
from training.engine.files import CLASSIFIER, REWARD_SCALE, adapter_digest
from training.engine.inputs import versions
from training.engine.models import Base, load_base
from training.engine.quantization import LAYERS
from training.engine.rundir import read_config
from training.engine.saved_adapters import saved_tensors
from training.engine.scores import ScoreHead, load_score_head, scale_text
from training.engine.sources import identity_of_base
from training.engine.whole_models import save_whole_model

#: The adapter's name on the base while it is measured and merged.
NAME = "merged"
#: The text on which outputs are compared.
QUESTION = "Why does the moon look larger near the horizon, and is it really larger there?"
ANSWER = (
    "It is an illusion: its image is as large as overhead. Near the horizon we compare it with "
    "houses and trees, and take it for farther away, so it seems larger to us."
)
#: What the update is added to, in words.
INTO = {
    "none": "the base's own full-precision weights",
    "nf4": "the base's weights as 4-bit NF4 holds them, dequantized to fp32",
}
HELD = {"none": "full-precision", "nf4": "4-bit", "int8": "8-bit"}
#: Said where it is not known what the adapter was trained on.
UNKNOWN = (
    "no run folder around the adapter says how the base was held while it was trained; 4 bits are "
    "assumed here"
)
#: Said of every merge into 4-bit weights.
AGAIN = (
    "the merged weights are no longer on the 4-bit grid: quantizing them to 4 bits again is lossy "
    "once more"
)
#: Merged and unmerged outputs may differ by this much in fp32, relative to the largest output.
TOLERANCE = 1e-3


def merge(*, base: str, adapter: Path, out: Path, quantization: str = "none") -> list[str]:
    """Write base plus adapter to `out`, measured. Returns: what is lost, in sentences.

    quantization: none merges into the base's own weights, nf4 into the dequantized 4-bit ones.
    Raises EngineError for what cannot be merged or written; then nothing is left behind.
    """
    if out.exists():
        raise RunFolderError(f"{out} exists already; give a new folder")
    if not out.absolute().parent.is_dir():
        raise RunFolderError(f"{out.absolute().parent} is not a folder; make it first")
    if (adapter / CLASSIFIER).is_file():
        raise BaseModelError(
            f"{adapter} holds a classifier's adapter, and merge takes those of policies and reward "
            "models; PEFT's merge_and_unload makes one model of it and its base"
        )
    config = BaseConfig(source=base)
    trained = trained_on(adapter)
    identity = identity_of_base(config)

    model = load_base(config)
    if quantization == "nf4":
        copy_dequantized(load_base(replace(config, quantization="nf4")), model)
    head = put_on(model, adapter)
    before = outputs(model, head)
    assert isinstance(model.model, PeftModel)  # noqa: S101 - the adapter is on it
    model.model = model.model.merge_and_unload(adapter_names=[NAME])
    model.adapters, model.active = [], None
    after = outputs(model, head)
    gap = distance(after, before)
    if not gap["largest"] <= TOLERANCE * max(1.0, before.abs().max().item()):
        raise BaseModelError(
            f"merging changed the outputs by up to {gap['largest']:.3g}, which is more than "
            "rounding: this adapter cannot be merged into this base"
        )
    found = {"merged_vs_adapter_on_the_same_weights": gap}
    held = trained or "nf4"
    if not held == quantization == "none":
        theirs = load_base(replace(config, quantization=held))
        as_trained = outputs(theirs, put_on(theirs, adapter))
        found[f"merged_vs_adapter_on_{held}"] = distance(after, as_trained)

    what = "logits" if head is None else "scores"
    said = [] if trained else [UNKNOWN]
    said += losses(held, quantization, found, what=what)
    facts = {
        "base": identity,
        "adapter_sha256": adapter_digest(adapter),
        "kind": "causal language model" if head is None else "reward model",
        "merged_into": INTO[quantization],
        "trained_on": trained or "unknown",
        "compared": what,
        "differences": found,
        "probe": [QUESTION, ANSWER],
        "warnings": said,
        "versions": versions("merge"),
    }
    texts = {
        "merge.json": json.dumps(facts, indent=2, ensure_ascii=False) + "\n",
        "README.md": readme(facts),
    }
    if head is not None and (scale := scale_text(head)) is not None:
        texts[REWARD_SCALE] = scale
    save_whole_model(model, out.absolute(), head=head, beside=texts)
    return said


def trained_on(adapter: Path) -> str | None:
    """How the base was held while the adapter was trained, as its run folder says; else None."""
    for folder in adapter.resolve().parents[:3]:  # RUN_DIR/attempts/TOKEN/adapter
        if (folder / "config.json").is_file() and (folder / "attempts").is_dir():
            try:
                return read_config(folder / "config.json").base.quantization
            except ConfigError:
                break
    return None


def put_on(base: Base, adapter: Path) -> ScoreHead | None:
    """Put the adapter on a base; returns its score head where it is a reward adapter."""
    base.add_adapter(NAME, AdapterConfig(), init_from=str(adapter))
    if "base_model.model.score.weight" not in saved_tensors(adapter):
        return None
    return load_score_head(adapter, base.hidden_size).to(base.device)


def copy_dequantized(quantized: Base, plain: Base) -> None:
    """Give `plain` the weights that 4-bit layers compute with."""
    layers = dict(plain.causal.named_modules())
    with torch.no_grad():
        for name, layer in quantized.causal.named_modules():
            if isinstance(layer, LAYERS["nf4"]):
                weight: Any = layer.weight
                full = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
                target: Any = layers[name].weight
                target.copy_(full)


@torch.no_grad()
def outputs(base: Base, head: ScoreHead | None) -> Tensor:
    """Logits (T, V), or scores (T,), of the probe text; under the adapter while it is on."""
    prompt = prompt_tokens(base, [{"role": "user", "content": QUESTION}])
    ids = torch.tensor([[*prompt, *response_tokens(base, ANSWER)]], device=base.device)
    with base.use(NAME if base.adapters else None):
        if head is None:
            values: Tensor = base.causal(input_ids=ids).logits[0]
        else:
            positions = torch.arange(ids.shape[1], device=base.device)[None]
            values = head(base.hidden(ids, positions, None)[0])
    return values.float().cpu()


def distance(one: Tensor, other: Tensor) -> dict[str, float]:
    """The largest and the root-mean-square difference of two models' outputs."""
    gap = one - other
    return {"largest": gap.abs().max().item(), "rms": gap.square().mean().sqrt().item()}


def losses(
    held: str, quantization: str, found: dict[str, dict[str, float]], *, what: str
) -> list[str]:
    """What merging loses, in sentences with the figures; empty where nothing is lost.

    held: the weights under the adapter while it was trained. what: the outputs that were compared.
    """
    if held == quantization == "none":
        return []
    gap = found[f"merged_vs_adapter_on_{held}"]
    lossy = "" if held == quantization else "merging is lossy: "
    said = (
        f"{lossy}the adapter was trained on {HELD[held]} weights and merged into "
        f"{INTO[quantization]}; on a text the {what} of the two are up to {gap['largest']:.3g} "
        f"apart (root mean square {gap['rms']:.3g})"
    )
    if quantization == "nf4":
        return [said, AGAIN]
    return [f"{said}; --quantization nf4 merges into those" if held == "nf4" else said]


def readme(facts: dict[str, Any]) -> str:
    """A card: what was merged into what, and the measured differences."""
    score = facts["kind"] == "reward model"
    found = facts["differences"]
    loader = "AutoModelForSequenceClassification" if score else "AutoModelForCausalLM"
    lines = [
        "# Merged model",
        "",
        f"A {facts['kind']} for `{loader}`: the adapter with SHA-256",
        f"`{facts['adapter_sha256']}`",
        f"added to {facts['merged_into']} (`{facts['base']['source']}`).",
        "",
        f"| difference of {facts['compared']} on the probe text of merge.json | largest | rms |",
        "|---|---|---|",
        *(f"| {name} | {gap['largest']:.3g} | {gap['rms']:.3g} |" for name, gap in found.items()),
        *(f"\n**Warning:** {line}." for line in facts["warnings"]),
    ]
    return "\n".join(lines) + "\n"
