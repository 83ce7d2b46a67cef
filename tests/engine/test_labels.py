"""What a preference row may say of itself, and how it is refused where it cannot mean that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import preference_row
from training.engine.config import DataConfig, from_dict
from training.engine.data import Label, encode_pairs, label_of, relative_weights
from training.engine.errors import ConfigError, DataError
from training.engine.models import Base
from training.engine.rundir import EventWriter


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({}, Label()),
        ({"probability": 0.83}, Label(probability=0.83)),
        # rows from before there were ties are none, whatever their probability
        ({"probability": 0.5}, Label(probability=0.5)),
        ({"tie": False, "probability": 0.5}, Label(probability=0.5)),
        ({"margin": 2, "weight": 0.25}, Label(margin=2.0, weight=0.25)),
        ({"tie": True}, Label(probability=0.5, tie=1.0, undecided=True)),
        # a tie counts half: two of three said chosen, one a tie
        ({"tie": 0.333333, "probability": 0.833333}, Label(probability=0.833333, tie=0.333333)),
        ({"tie": 0.2}, Label(probability=0.9, tie=0.2)),
        # ties outnumber both sides, or the sides are equal
        ({"tie": 0.5, "probability": 0.6}, Label(probability=0.6, tie=0.5, undecided=True)),
        ({"tie": 0, "probability": 0.5}, Label(probability=0.5, undecided=True)),
    ],
)
def test_a_label_is_read_as_documented(row: dict[str, Any], label: Label) -> None:
    assert label_of(row, "row") == label


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"weight": 0}, "weight is 0.0, not a number above 0"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": float("inf")}, "weight is inf"),
        ({"weight": "much"}, "weight is 'much'"),
        ({"weight": True}, "weight is True"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"margin": 1.0, "tie": True}, "the row is a tie, which has none"),
        ({"tie": 1.5}, "tie is 1.5"),
        ({"tie": "yes"}, "tie is 'yes'"),
        ({"tie": True, "probability": 1.0}, "cannot both be"),
        ({"tie": 0.5, "probability": 0.9}, "cannot both be"),
        ({"probability": float("nan")}, "probability is nan"),
    ],
)
def test_a_label_that_cannot_be_meant_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=r"^train row 3") as caught:
        label_of(row, "train row 3")
    assert words in str(caught.value)


def test_ties_are_left_out_and_counted_unless_asked_for(base: Base, tmp_path: Path) -> None:
    rows = [preference_row(1), preference_row(2) | {"tie": True, "probability": 0.5}]
    log = EventWriter(tmp_path / "events.jsonl")
    (pair,) = encode_pairs(base, rows, DataConfig(), log, "train")
    assert pair.prompt_id == "prompt-1"
    said = json.loads((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (said["code"], said["message"].split(":")[0]) == ("ties", "1 train rows left out")
    both = encode_pairs(base, rows, DataConfig(), log, "train", ties=True)
    assert [pair.label.undecided for pair in both] == [False, True]
    with pytest.raises(DataError, match=r"every row is a tie; reward\.ties"):
        encode_pairs(base, rows[1:], DataConfig(), log, "train")


def test_equal_weights_are_exactly_one_and_others_keep_their_ratio(
    base: Base, tmp_path: Path
) -> None:
    log = EventWriter(tmp_path / "events.jsonl")

    def weights(*given: float) -> list[float]:
        rows = [preference_row(n) | {"weight": w} for n, w in enumerate(given)]
        return relative_weights(encode_pairs(base, rows, DataConfig(), log, "train"))

    assert weights(0.1, 0.1, 0.1) == [1.0, 1.0, 1.0]
    assert weights(1, 3) == [0.5, 1.5]


@pytest.mark.parametrize(
    ("method", "section", "words"),
    [
        ("reward", {"ties": "rao_kupper", "margin": True}, "reward.margin is True"),
        ("reward", {"ties": "davidson", "margin": True}, "false with reward.ties davidson"),
        ("reward", {"ties": "thirds"}, "skip, half, rao_kupper, davidson"),
        ("reward", {"tie_parameter": 2.0}, "null with reward.ties skip"),
        ("reward", {"ties": "rao_kupper", "tie_parameter": 1.0}, "above 1 "),
        ("reward", {"ties": "davidson", "tie_parameter": 0.0}, "above 0 "),
        ("reward", {"ties": "davidson", "tie_parameter": float("nan")}, "above 0 "),
        ("reward", {"normalize": "std"}, "none, mean, mean_std"),
        ("reward", {"ensemble": 0}, "1 to 64"),
        ("reward", {"conservative": 1.0}, "set reward.ensemble to 2 or more"),
        ("reward", {"conservative": 1.0, "ensemble": 2}, "without reward.normalize"),
        ("reward", {"conservative": -1.0, "ensemble": 2}, "0 or more"),
        ("reward", {"margins": True}, "unknown fields: margins"),
        ("dpo", {"margin": True, "loss": "ipo"}, "false with dpo.loss ipo"),
        ("dpo", {"margin": 1.0}, "dpo.margin is 1.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(
    method: str, section: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({"method": method, "base": {"source": "demo"}, method: section})
    assert words in str(caught.value)
