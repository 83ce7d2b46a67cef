"""Pushing adapters: what arrives is whole and free of this machine, and its own card loads it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from django.core.management import call_command
from peft import PeftModel
from pytest_django.fixtures import Settings
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from annotate.errors import HubRefused
from annotate.services.ingest import store_prompt_set
from tests.annotate.export.snapshots import real_snapshot
from tests.engine.tiny import save_tiny, user
from tests.hub_server import Hub
from tests.people import People
from tests.training.test_publishing import read_back
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.models import ScalarHead, load_base
from training.engine.packaged import PACKAGED
from training.engine.scores import RewardScale, ScoreHead
from training.export.card import score_of_heads
from training.models import ModelVersion, Round, Run
from training.services.publishing import push_model
from training.services.registering import register_version
from training.services.versions import base_version

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def train(tiny: Path, folder: Path, *, reward: bool) -> None:
    """An adapter as a run leaves it, its weights random instead of learnt."""
    torch.manual_seed(7)
    base = load_base(BaseConfig(source=str(tiny), quantization="none"))
    base.add_adapter("adapter", AdapterConfig())
    with torch.no_grad():
        for parameter in base.parameters("adapter"):
            parameter.normal_(0, 0.1)
    folder.parent.mkdir(parents=True)
    if reward:
        head = ScalarHead(base.hidden_size, std=0.5)
        base.save_reward_adapter("adapter", head, folder)
    else:
        base.save_adapter("adapter", folder)


def make_version(
    people: People, settings: Settings, tiny: Path, *, kind: str, source: str
) -> ModelVersion:
    """A version as a finished round registers it: snapshot, run, config, result, adapter."""
    reward = kind == "reward"
    snapshot = real_snapshot(people.workspace, "hh-helpful")
    base = base_version(workspace=people.workspace, source=source)
    fresh = store_prompt_set(
        workspace=people.workspace, conversations=[user("Fresh?")], name="fresh", use="fresh"
    )
    round = Round.objects.create(
        workspace=people.workspace,
        project=snapshot.project,
        number=1,
        snapshot=snapshot,
        method="dpo",
        reference=base,
        fresh_prompts=fresh,
    )
    method = "reward" if reward else "dpo"
    folder = f"round-1/{method}-{people.workspace.pk}-{kind}"
    run = Run.objects.create(
        workspace=people.workspace,
        round=round,
        method=method,
        stage="reward" if reward else "policy",
        folder=folder,
        version=base,
        config={
            "method": method,
            "seed": 3,
            "base": base.base,
            "adapter": {"r": 16, "alpha": 32, "init_from": "/somewhere/private/adapter"},
            "optim": {"lr": 0.0005, "batch_size": 8},
            "data": {"train": "data/train.jsonl", "max_length": 1024},
            method: {"centring": 0.01} if reward else {"beta": 0.1},
        },
        result={
            "status": "done",
            "adapter": "attempts/1a2b/adapter",
            "metrics": {
                "reward/accuracy": 0.6875,
                "reward/accuracy_low": 0.5644,
                "reward/accuracy_high": 0.8032,
            }
            if reward
            else {"dpo/margin_after": 0.31},
            "steps": 26,
            "rows": 208,
            "seconds": 164.6,
            "config_sha256": "c" * 64,
            "data_sha256": "d" * 64,
            "versions": {"torch": "2.13.0", "peft": "0.21.2"},
        },
    )
    train(tiny, Path(settings.RUNS_DIR) / folder / "attempts/1a2b/adapter", reward=reward)
    return register_version(run=run, round=round, kind=kind)


def snippet(card: str) -> str:
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found, "the card shows how to load it"
    return found[1]


def test_the_card_of_a_policy_loads_it_with_stock_peft(
    hub: Hub, people: People, settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    version = make_version(people, settings, tiny, kind="policy", source="demo")
    hub.seed(
        "model",
        PACKAGED["demo"].hub_id,
        {path.name: path.read_bytes() for path in tiny.iterdir()},
        private=False,
    )
    out = StringIO()
    call_command("push_model", str(version.pk), "--repo", "lab/policy", stdout=out)
    assert f"pushed to {hub.endpoint}/lab/policy" in out.getvalue()
    repo = hub.repos["model", "lab/policy"]
    assert repo.private
    assert len(repo.pushes) == 1
    more = """
ids = tokenizer("What is red?", return_tensors="pt")
print([round(x, 4) for x in model(**ids).logits[0, -1, :6].tolist()])"""
    program = snippet(repo.files["README.md"].decode()) + more
    theirs = json.loads(read_back(hub, program, tmp_path / "home").splitlines()[-1])

    folder = Path(settings.RUNS_DIR) / version.adapter_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("What is red?", return_tensors="pt")
    bare = AutoModelForCausalLM.from_pretrained(tiny)
    before = bare(**ids).logits[0, -1, :6].tolist()
    ours = PeftModel.from_pretrained(bare, folder).eval()(**ids).logits[0, -1, :6].tolist()
    assert theirs == pytest.approx(ours, abs=1e-3)
    assert theirs != pytest.approx(before, abs=1e-2)


def test_the_card_of_a_reward_model_scores_with_stock_peft(
    hub: Hub, people: People, settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    version = make_version(people, settings, tiny, kind="reward", source="demo")
    hub.seed(
        "model",
        PACKAGED["demo"].hub_id,
        {path.name: path.read_bytes() for path in tiny.iterdir()},
        private=False,
    )
    push_model(version=version, repo="lab/reward")
    files = hub.repos["model", "lab/reward"].files
    program = snippet(files["README.md"].decode())
    theirs = float(read_back(hub, program, tmp_path / "home").splitlines()[-1])

    folder = Path(settings.RUNS_DIR) / version.adapter_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bare = AutoModelForSequenceClassification.from_pretrained(
        tiny, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    model = PeftModel.from_pretrained(bare, folder).eval()
    messages = [
        {"role": "user", "content": "What is red?"},
        {"role": "assistant", "content": "A colour."},
    ]
    inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        ours = model(**inputs).logits.item()
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert abs(ours) > 1e-3

    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "peft"
    assert head["base_model"] == PACKAGED["demo"].hub_id
    assert head["pipeline_tag"] == "text-classification"
    assert head["license"] == "unknown"
    for told in ("0.6875", "0.564 to 0.803", "| `optim.lr` | 0.0005 |", "nf4"):
        assert told in card
    snapshot = version.run.round.snapshot
    lineage = json.loads(files["lineage.json"])
    assert lineage["snapshot"]["sha256"] == snapshot.sha256
    assert snapshot.sha256 in card
    assert lineage["version"]["sha256"] == version.digest
    assert lineage["config"]["reward"] == {"centring": 0.01}


def test_the_card_makes_one_score_of_heads_as_the_engine_does() -> None:
    head = ScoreHead(4, heads=3)
    values = torch.tensor([[0.0, 1.0, 5.0], [2.0, -1.0, 4.0]])
    head.scale = RewardScale.plain(3, conservative=0.5)
    head.normalise(values, deviation=True)
    for scale in (head.scale, RewardScale.plain(3)):
        head.scale = scale
        told = None if scale.is_plain else asdict(scale)
        names = {"torch": torch, "heads": values[1]}
        exec(score_of_heads(told), names)  # noqa: S102 - what the card tells others to run
        assert names["score"].item() == pytest.approx(head.combine(values)[1].item(), abs=1e-5)


def test_nothing_of_this_machine_leaves_with_a_local_base(
    hub: Hub, people: People, settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    version = make_version(people, settings, tiny, kind="policy", source=str(tiny))
    push_model(version=version, repo="lab/policy")
    files = hub.repos["model", "lab/policy"].files
    for name, content in files.items():
        for secret in (str(tmp_path), str(tiny.parent), "/somewhere/private", "example.org"):
            assert secret.encode() not in content, f"{name} holds {secret}"
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "tiny"
    card = files["README.md"].decode()
    assert "not on the Hub (`tiny`" in card
    assert "base_model" not in yaml.safe_load(card.split("---")[1])
    assert (
        files["adapter_model.safetensors"]
        == (
            Path(settings.RUNS_DIR) / version.adapter_path / "adapter_model.safetensors"
        ).read_bytes()
    )


def test_an_adapter_that_changed_is_not_pushed(
    hub: Hub, people: People, settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    version = make_version(people, settings, tiny, kind="policy", source="demo")
    weights = Path(settings.RUNS_DIR) / version.adapter_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(HubRefused, match="has changed since it was registered"):
        push_model(version=version, repo="lab/policy")
    weights.unlink()
    with pytest.raises(HubRefused, match="cannot be read"):
        push_model(version=version, repo="lab/policy")
    assert hub.seen == []
