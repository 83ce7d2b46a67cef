"""A reward model's ties on its page in the registry and on its card for the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_round, make_run, make_version
from training.engine.ties import TieModel
from training.export.card import model_card
from training.models import ModelVersion
from training.selectors.results import run_measures
from training.selectors.ties import Ties, ties_of


def reward_model(people: People, section: dict[str, Any], **metrics: float) -> ModelVersion:
    round = make_round(make_project(people.workspace))
    run = make_run(round, stage="reward", state="succeeded")
    run.config = {"method": "reward", "seed": 0, "reward": section}
    found = {f"reward/{name}": value for name, value in metrics.items()}
    run.result = {"status": "done", "seconds": 1.0, "peak_mb": 1.0, "metrics": found}
    run.save()
    return make_version(
        people.workspace, "judge", kind="reward", project=round.project, run=run, metrics=found
    )


@pytest.mark.parametrize(("kind", "value"), [("rao_kupper", 1.6), ("davidson", 0.31)])
def test_equal_scores_tie_as_the_engines_model_says(kind: str, value: float) -> None:
    with torch.no_grad():
        model = TieModel(kind, value, learnt=False)
        *_, tie = model.log_probabilities(torch.zeros(1, dtype=torch.float64))
    assert Ties(kind, value, learnt=True).at_equal == pytest.approx(tie.exp().item(), abs=1e-6)


def test_its_page_and_its_card_tell_the_model_and_its_parameter(
    people: People, client: Client, tmp_path: Path, settings: Any
) -> None:
    settings.RUNS_DIR = tmp_path
    section = {"ties": "davidson", "tie_parameter": None, "normalize": "mean_std", "ensemble": 2}
    version = reward_model(people, section, accuracy=0.7, tie_parameter=0.5, reference_mean=0.1)
    folder = tmp_path / version.adapter_path
    folder.mkdir(parents=True)
    scale = {"version": 1, "centres": [0.1, 0.2], "conservative": 0.0, "mean": 0.0, "std": 0.25}
    (folder / "reward_scale.json").write_text(json.dumps(scale), encoding="utf-8")
    client.force_login(people.rita)
    page = client.get(f"/models/{version.pk}/").content.decode()
    # 0.5 / 2.5
    assert "Davidson (1970), ν = 0.500 (learnt): answers of equal score tie" in page
    assert "with probability 0.200" in page
    card = model_card(version, "lab/judge")
    assert "Davidson (1970) with ν = 0.5 (learnt from the training rows)" in card
    assert "P(tie) = ν/D" in card
    assert "tie with probability 0.2." in card
    assert "multiply the difference of two scores by 0.25 first" in card
    assert "Each head was trained so" in card
    # they were learnt from training rows, and rest on no held-out pair
    assert version.run is not None
    rests = {measure.name: measure.n for measure in run_measures(version.run)}
    assert rests["reward/accuracy"] is not None
    assert rests["reward/tie_parameter"] is rests["reward/reference_mean"] is None


def test_a_given_parameter_is_not_called_learnt(people: People) -> None:
    section = {"ties": "rao_kupper", "tie_parameter": 3.0}
    version = reward_model(people, section, tie_parameter=3.0)
    card = model_card(version, "lab/judge")
    assert "Rao and Kupper (1967) with θ = 3 (given, not learnt from the training rows)" in card
    assert "P(first better) = σ(d − ln θ)" in card
    assert "tie with probability 0.5." in card
    assert "multiply the difference" not in card


@pytest.mark.parametrize("section", [{"ties": "skip"}, {"ties": "half"}, {"centring": 0.1}])
def test_without_a_tie_model_nothing_is_said(
    section: dict[str, Any], people: People, client: Client
) -> None:
    version = reward_model(people, section, accuracy=0.7)
    assert ties_of(version) is None
    client.force_login(people.rita)
    assert "<dt>Ties</dt>" not in client.get(f"/models/{version.pk}/").content.decode()
    assert "Ties were modelled" not in model_card(version, "lab/judge")
