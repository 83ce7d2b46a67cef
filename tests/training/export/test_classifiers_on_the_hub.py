"""Pushing classifiers: stock `pipeline("text-classification")` says what the run's model says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pytest_django.fixtures import Settings
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from annotate.errors import HubRefused
from tests.engine.labelled import TEST, TRAIN, WORDS, asked
from tests.engine.test_classify import untrained
from tests.engine.tiny import save_encoder
from tests.hub_server import Hub
from tests.people import People
from tests.training.test_publishing import read_back
from training.models import ModelVersion, Run, TextSet
from training.services.publishing import push_model
from training.services.registering import register_single
from training.services.text_rows import Document
from training.services.text_sets import store_text_set
from training.services.versions import base_version

pytestmark = pytest.mark.django_db(transaction=True)
BASE_ID = "lab/bert"


def labelled(people: People) -> TextSet:
    rows = [Document("", row["text"], {"label": row["label"]}) for row in (*TRAIN, *TEST)]
    return store_text_set(
        workspace=people.workspace, documents=rows, name="topics", kind="labelled",
        licence="CC0-1.0",
    )  # fmt: skip


def make_classifier(people: People, runs: Path, source: Path, *, tuning: str) -> ModelVersion:
    """A version as a finished run registers it, its weights noise instead of learnt."""
    saved, _ = untrained(runs / "classify", asked(source, tuning=tuning))
    kind = "model" if tuning == "full" else "adapter"
    base = base_version(workspace=people.workspace, source=BASE_ID)
    run = Run.objects.create(
        workspace=people.workspace, method="classify", text_set=labelled(people),
        folder="classify", version=base,
        config={"method": "classify", "tuning": tuning,
                "base": {**base.base, "quantization": "none"}, "optim": {"lr": 1e-3},
                "data": {"train": "data/train.jsonl"}},
        result={"status": "done", kind: str(saved.relative_to(runs / "classify")),
                "metrics": {"classify/accuracy": 0.5, "classify/accuracy_low": 0.4,
                            "classify/accuracy_high": 0.6}},
    )  # fmt: skip
    made = register_single(run=run)
    assert made is not None
    return made


def answers_of(folder: Path, source: Path, *, whole: bool) -> dict[str, float]:
    """What transformers and PEFT say of the run's own folder."""
    if whole:
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    else:
        named = AutoConfig.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(source, config=named)
        model = PeftModel.from_pretrained(model, folder)
    inputs = AutoTokenizer.from_pretrained(folder)("the ball and the soup", return_tensors="pt")
    with torch.no_grad():
        shares = model.eval()(**inputs).logits[0].softmax(-1).tolist()
    return dict(zip(model.config.id2label.values(), shares, strict=True))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_card_of_a_classifier_loads_it_in_a_stock_pipeline(
    hub: Hub, people: People, settings: Settings, tmp_path: Path, tuning: str
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    source = save_encoder(tmp_path / "bert", "bert", words=WORDS)
    version = make_classifier(people, tmp_path / "runs", source, tuning=tuning)
    hub.seed(
        "model", BASE_ID, {path.name: path.read_bytes() for path in source.iterdir()}, private=False
    )
    push_model(version=version, repo="lab/topics")
    files = hub.repos["model", "lab/topics"].files
    card = files["README.md"].decode()
    assert "pipeline_tag: text-classification" in card
    assert "licence: CC0-1.0" in card
    assert json.loads(files["lineage.json"])["text_set"]["name"] == "topics"
    everything = b"".join(content for name, content in files.items() if name.endswith(".json"))
    assert str(tmp_path).encode() not in everything + card.encode()

    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found
    program = f"""{found[1]}
import json
said = classify("the ball and the soup", top_k=None)
print(json.dumps({{each["label"]: each["score"] for each in said}}))"""
    theirs = json.loads(read_back(hub, program, tmp_path / "home").splitlines()[-1])
    whole = tuning == "full"
    folder = tmp_path / "runs" / (version.model_path if whole else version.adapter_path)
    ours = answers_of(folder, source, whole=whole)
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert max(ours.values()) - min(ours.values()) > 1e-3

    # What was changed since is not pushed under this version's name.
    weights = next(folder.glob("*model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(HubRefused, match="has changed"):
        push_model(version=version, repo="lab/topics")
