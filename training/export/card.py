"""The model card: how the weights were made, from what, how good they are, how to load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annotate.models import Project, Snapshot
from annotate.selectors.quality import project_agreement
from training.engine.config import ONLINE_METHODS
from training.engine.files import REWARD_SCALE
from training.export.facts import (
    BaseModel,
    base_model,
    measures,
    named,
    reward_model_of,
    round_of,
    snapshot_of,
    text_set_of,
    training_config,
)
from training.models import ModelVersion
from training.selectors.ties import ties_of
from training.services.versions import adapter_folder

METHODS = {
    "sft": "supervised fine-tuning on chosen responses",
    "reward": "training a pairwise reward model (Bradley-Terry)",
    "dpo": "Direct Preference Optimization (DPO)",
    "kto": "Kahneman-Tversky Optimization (KTO), by TRL",
    "orpo": "Odds-Ratio Preference Optimization (ORPO), by TRL",
    "grpo": "Group Relative Policy Optimization (GRPO), by TRL, against a learned reward model",
    "rloo": "REINFORCE leave-one-out (RLOO), by TRL, against a learned reward model",
    "pretrain": "continued pretraining on raw text",
    "classify": "training a sequence classifier",
    "ppo": "Proximal Policy Optimization (PPO) against a learned reward model",
}


def model_card(version: ModelVersion, repo: str) -> str:
    """Markdown with the YAML head that the Hub reads."""
    base = base_model(version)
    return f"""{head(version, base)}
# {version.name}

{opening(version, base)}

## Loading
```python
{snippet(version, base, repo)}
```
{loading_notes(version, base)}

## How it was trained
{training_table(version, base)}

## How good it is
{measure_table(version)}

## Where it comes from
{lineage_lines(version)}
The same as data, with every hash: `lineage.json`.

## Intended use and limits
{limits(version)}
"""


DOES = {
    ModelVersion.Kind.REWARD: "Scores answers",
    ModelVersion.Kind.CLASSIFIER: "Gives texts one of its labels",
    ModelVersion.Kind.PRETRAINED: "Goes on with a text",
}


def opening(version: ModelVersion, base: BaseModel) -> str:
    what = DOES.get(ModelVersion.Kind(version.kind), "Answers as a chat model")
    method = METHODS.get(method_of(version), "an unknown method")
    if version.model_path:
        return (
            f"A whole model: every weight of {base_words(base)} was trained on, by {method}. "
            f"{what}; nothing else is needed beside it."
        )
    return (
        f"A LoRA adapter (PEFT) on {base_words(base)}, made by {method}. {what}; it is only the "
        "adapter, the base is loaded beside it."
    )


def method_of(version: ModelVersion) -> str:
    return version.run.method if version.run is not None else "unknown"


def snippet(version: ModelVersion, base: BaseModel, repo: str) -> str:
    """Code that loads what is pushed with stock libraries."""
    whole = bool(version.model_path)
    if version.kind == ModelVersion.Kind.REWARD:
        return reward_snippet(version, base, repo)
    if version.kind == ModelVersion.Kind.CLASSIFIER:
        return classifier_snippet(base, repo, whole=whole)
    return policy_snippet(
        base, repo, whole=whole, turns=version.kind != ModelVersion.Kind.PRETRAINED
    )


def head(version: ModelVersion, base: BaseModel) -> str:
    whole, scores = bool(version.model_path), not version.writes
    lines = [f"library_name: {'transformers' if whole else 'peft'}", "license: unknown"]
    if base.on_hub:
        relation = "finetune" if whole else "adapter"
        lines += [f"base_model: {json.dumps(base.name)}", f"base_model_relation: {relation}"]
    lines.append(f"pipeline_tag: {'text-classification' if scores else 'text-generation'}")
    tags = [] if whole else ["lora"]
    if version.kind == ModelVersion.Kind.REWARD:
        tags += ["human-feedback", "reward-model"]
    elif round_of(version) is not None:
        tags += ["human-feedback", "rlhf"]
    tags.append(method_of(version))
    lines += ["tags:", *(f"- {tag}" for tag in dict.fromkeys(tags) if tag != "reward")]
    return "\n".join(["---", *lines, "---"])


def base_words(base: BaseModel) -> str:
    if base.packaged_gguf:
        return f"`{base.name}` (trained on the packaged GGUF copy of it)"
    if base.on_hub:
        return f"`{base.name}`" + (f" at revision `{base.revision}`" if base.revision else "")
    return f"a base model that is not on the Hub (`{base.name}`, local to whoever trained this)"


def base_argument(base: BaseModel) -> str:
    revision = f", revision={json.dumps(base.revision)}" if base.revision else ""
    return f"{json.dumps(base.name)}{revision}"


def policy_snippet(base: BaseModel, repo: str, *, whole: bool, turns: bool) -> str:
    """turns: whether it is asked through a chat template, or goes on with a text."""
    named = json.dumps(repo)
    load = f"""base = AutoModelForCausalLM.from_pretrained({base_argument(base)})
model = PeftModel.from_pretrained(base, {named}).eval()"""
    if whole:
        load = f"model = AutoModelForCausalLM.from_pretrained({named}).eval()"
    ask = """messages = [{"role": "user", "content": "What is red?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)"""
    if not turns:
        ask = 'inputs = tokenizer("The first words of a document", return_tensors="pt")'
    first = "" if whole else "from peft import PeftModel\n"
    return f"""{first}from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({named})
{load}

{ask}
answer = model.generate(**inputs, max_new_tokens=64, do_sample=True)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def classifier_snippet(base: BaseModel, repo: str, *, whole: bool) -> str:
    named = json.dumps(repo)
    if whole:
        return f"""from transformers import pipeline

classify = pipeline("text-classification", model={named})
print(classify("What is red?", top_k=None))"""
    return f"""from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

config = AutoConfig.from_pretrained({named})  # the labels
base = AutoModelForSequenceClassification.from_pretrained({base_argument(base)}, config=config)
model = PeftModel.from_pretrained(base, {named}).merge_and_unload().eval()

tokenizer = AutoTokenizer.from_pretrained({named})
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
print(classify("What is red?", top_k=None))"""


def reward_snippet(version: ModelVersion, base: BaseModel, repo: str) -> str:
    heads = (training_config(version).get("reward") or {}).get("ensemble", 1)
    scale = scale_of(version)
    return f"""import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({json.dumps(repo)})
base = AutoModelForSequenceClassification.from_pretrained(
    {base_argument(base)}, num_labels={heads}, pad_token_id=tokenizer.pad_token_id
)
model = PeftModel.from_pretrained(base, {json.dumps(repo)}).eval()

messages = [
    {{"role": "user", "content": "What is red?"}},
    {{"role": "assistant", "content": "A colour."}},
]
inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
with torch.no_grad():
    heads = model(**inputs).logits[0]
{score_of_heads(scale)}
print(score.item())  # higher is better; only differences mean something"""


def scale_of(version: ModelVersion) -> dict[str, Any] | None:
    """reward_scale.json of the adapter; None where the score is its one head's number."""
    path = Path(adapter_folder(version) or "") / REWARD_SCALE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def score_of_heads(scale: dict[str, Any] | None) -> str:
    """Code that makes `score` of `heads`, as the engine does (training.engine.scores)."""
    if scale is None:
        return "score = heads.mean()"
    return f"""heads = heads - torch.tensor({scale["centres"]})  # reward_scale.json
score = heads.mean() - {scale["conservative"]} * heads.std(correction=0)
score = (score - {scale["mean"]}) / {scale["std"]}"""


def loading_notes(version: ModelVersion, base: BaseModel) -> str:
    reward, notes = version.kind == ModelVersion.Kind.REWARD, tie_notes(version)
    if version.model_path:
        return ""
    if not base.on_hub:
        notes.append(
            f"`{base.name}` stands for the path of the base model, which you must have yourself."
        )
    if base.packaged_gguf:
        notes.append(
            "The adapter was trained on a quantized GGUF copy of the base; on the Hub's own "
            "weights its numbers will differ a little from those below."
        )
    if base.quantization != "none":
        notes.append(
            f"In training the base was quantized to {base.quantization}; without quantization "
            "outputs differ slightly."
        )
    if reward:
        notes.append(
            "Keep `pad_token_id` as shown: the model scores at the last token that is not padding, "
            "and the saved tokenizer pads with a token that does not end a turn."
        )
    return "\n".join(f"- {note}" for note in notes)


def tie_notes(version: ModelVersion) -> list[str]:
    """How to read a difference of two scores where ties were modelled; nothing where not."""
    ties = ties_of(version)
    if ties is None:
        return []
    scale = scale_of(version) or {}
    note = (
        f"Ties were modelled as by {ties.name} with {ties.symbol} = "
        f"{ties.value:.4g} ({'learnt from' if ties.learnt else 'given, not learnt from'} the "
        f"training rows). Where the first of two answers scores higher by d: {ties.formula}. "
        f"Answers of equal score tie with probability {ties.at_equal:.3g}."
    )
    if scale.get("std", 1.0) != 1.0:
        note += f" For d multiply the difference of two scores by {scale['std']:.4g} first."
    if len(scale.get("centres", [0.0])) > 1:
        note += " Each head was trained so; for the score made of them it is an approximation."
    return [note]


def training_table(version: ModelVersion, base: BaseModel) -> str:
    rows: list[tuple[str, Any]] = []
    for key, value in training_config(version).items():
        if isinstance(value, dict):
            rows += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            rows.append((key, value))
    rows += [("base.quantization", base.quantization), ("base.dtype", base.dtype)]
    result = (version.run.result or {}) if version.run is not None else {}
    rows += [(key, result[key]) for key in ("steps", "rows", "seconds", "peak_mb") if key in result]
    rows += sorted(result.get("versions", {}).items())
    lines = [f"| `{name}` | {json.dumps(value)} |" for name, value in rows if value is not None]
    return "\n".join(["| setting | value |", "|---|---|", *lines])


def measure_table(version: ModelVersion) -> str:
    found = measures(version)
    if not found:
        return "Nothing was measured."
    lines = [
        "| metric | value | 95 % interval | held-out rows | from | meaning |",
        "|" + "---|" * 6,
    ]
    for measure in found:
        interval = "not computed"
        if measure.low is not None and measure.high is not None:
            interval = f"{measure.low:.3f} to {measure.high:.3f}"
        lines.append(
            f"| `{measure.name}` | {measure.value:.4g} | {interval} | {measure.n or 'n/a'} | "
            f"{measure.source} | {measure.meaning} |"
        )
    notes = (
        "Intervals are clustered by prompt; where none was computed, take the number as a hint. "
        "Rows that are too long for the run are left out of their count."
    )
    return "\n".join([*lines, "", notes])


def lineage_lines(version: ModelVersion) -> str:
    snapshot, round, reward = snapshot_of(version), round_of(version), reward_model_of(version)
    steps = []
    if snapshot is not None:
        agreement = project_agreement(project=snapshot.project)
        trust = f"not known ({agreement.reason})"
        if agreement.alpha is not None:
            trust = (
                f"Krippendorff's alpha {agreement.alpha:.3f}, {agreement.n_judgments} judgments "
                f"of {agreement.n_annotators} annotators (as of this card)"
            )
        steps.append(
            f"snapshot {snapshot.number} of project {snapshot.project.slug}: {snapshot.n_train} "
            f"training and {snapshot.n_test} held-out {rows_in(snapshot)}, sha256 "
            f"`{snapshot.sha256}`; agreement: {trust}"
        )
    texts = text_set_of(version)
    if texts is not None:
        said = f"; from {texts.source}" if texts.source else ""
        steps.append(
            f"text set {texts} ({texts.get_kind_display().lower()}): {texts.n_train} to train on "
            f"and {texts.n_held_out} held out, sha256 `{texts.sha256}`{said}; licence: "
            f"{texts.licence or 'not said'}"
        )
    if reward is not None:
        online = round is not None and round.method in ONLINE_METHODS
        use = "maximised" if online else "used in evaluation"
        steps.append(f"reward model ({use}): {reward.name}, sha256 `{reward.digest}`")
    if version.parent is not None:
        parent = named(version.parent) or {}
        steps.append(f"started from: {parent['name']}, sha256 `{parent['sha256']}`")
    what = "model" if version.model_path else "adapter"
    steps.append(f"this {what}, sha256 `{version.digest}` (over its config and weights)")
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1)) + "\n"


def rows_in(snapshot: Snapshot) -> str:
    return "labels" if snapshot.project.kind == Project.Kind.LABELS else "preferences"


USES = {
    ModelVersion.Kind.REWARD: "For ranking answers to prompts like those of its snapshot, and for "
    "studying reward models. Scores of different prompts cannot be compared, and a high score is "
    "not proof of a good or true answer.",
    ModelVersion.Kind.CLASSIFIER: "For texts like those it was trained on, and for its labels "
    "alone: every text gets one of them, also where none fits. How sure it may be is in the "
    "calibration of its run; it inherits what its base and the people who labelled prefer.",
    ModelVersion.Kind.PRETRAINED: "For further training on its domain. It foresees such texts, and "
    "was neither taught to answer nor tested for safety, truthfulness or bias.",
}
POLICY_USE = (
    "For studying preference learning and for collecting further comparisons. It was not tested "
    "for safety, truthfulness or bias; it inherits what its base has of these and what its "
    "annotators preferred."
)


def limits(version: ModelVersion) -> str:
    kind = ModelVersion.Kind(version.kind)
    state = {
        ModelVersion.State.PROMOTED: "A person promoted this version after looking at its answers.",
        ModelVersion.State.REJECTED: "A person looked at this version and REJECTED it.",
    }.get(ModelVersion.State(version.state), "No person has given a verdict on this version yet.")
    verdict = f"- {state}\n" if version.writes else ""  # people judge policies by their answers
    return f"""- {USES.get(kind, POLICY_USE)}
{verdict}- Its licence is unknown to the platform: it follows from the base's, the prompts' and the
  responses' licences, which must be checked before it is made public."""
