"""The report of a tiny evaluation: its numbers are those of result.json, its texts are inert."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import assistant, events, make_run, preference_row, result, save_tiny, user
from training.engine.__main__ import main
from training.engine.report import number, page

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" 'too'"
#: Elements that never have an end tag.
VOID = ("meta", "circle", "path")


class Outline(HTMLParser):
    """Tags, and the text of every cell and paragraph; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def judged_row(number: int) -> dict[str, Any]:
    row = preference_row(number)
    choices = ("chosen", "chosen", "rejected") if number == 0 else ("chosen", "chosen", "tie")
    people = ("ann", "ann", HOSTILE)
    row["prompt"] = user(f"{HOSTILE} {number}")
    row["judgments"] = [
        {"annotator": who, "choice": choice} for who, choice in zip(people, choices, strict=True)
    ]
    return row


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model and a policy of one step each, evaluated on four pairs."""
    folder = tmp_path_factory.mktemp("evaluated")
    base = {"source": str(save_tiny(folder / "base"))}
    adapters = {}
    for method in ("reward", "dpo"):
        config = {"method": method, "base": base, "optim": {"max_steps": 1}}
        trained = make_run(folder / method, config, train=[preference_row(n) for n in range(4)])
        assert main(["run", str(trained)]) == 0
        adapters[method] = str(trained / "adapter")
    config = {
        "method": "evaluate",
        "base": base,
        "evaluate": {
            "reward_adapter": adapters["reward"],
            "policy_adapter": adapters["dpo"],
            "generate": 3,
            "max_new_tokens": 8,
            "general": True,
            "gate": 1e-9,
        },
    }
    said = [{"id": "a", "choice": "second"}, {"id": "b", "choice": "tie", "flipped": True}]
    steps = [{"step": n, "kl": 0.1 * n, "reward": 1.0 if n == 2 else 0.5} for n in range(1, 4)]
    rows = [judged_row(n) for n in range(4)]
    run = make_run(folder / "run", config, test=rows, judged=said, frontier=steps)
    assert main(["run", str(run)]) == 0
    return run


def test_the_report_holds_the_numbers_of_the_result(evaluated: Path):
    found = result(evaluated)
    outline = Outline((evaluated / found["report"]).read_text(encoding="utf-8"))
    text = "\n".join(outline.texts)
    known = found["evaluation"]
    for figure in (
        known["reward"]["accuracy"],
        known["policy"]["accuracy"],
        known["reward"]["human"]["inter_annotator"],
        known["reward"]["human"]["intra_annotator"],
        known["answers"]["win_rate"],
        known["answers"]["policy"]["reward"],
        known["answers"]["reference"]["refusal_rate"],
        known["judge"]["rate"],
        known["forgetting"]["probes"]["after"],
        known["forgetting"]["probes"]["change"],
        known["forgetting"]["probes"]["by_kind"]["arithmetic"]["before"],
    ):
        assert number(figure) in text
    assert f"calibration error {known['reward']['calibration']['ece']:.3f}" in text
    assert known["reward"]["accuracy"]["value"] == found["metrics"]["reward/accuracy"]


def test_ceilings_of_the_run_are_those_worked_by_hand(evaluated: Path):
    human = result(evaluated)["evaluation"]["reward"]["human"]
    # two people: 0 on the first row (opposite), 1/2 on three (one of them says tie): 1.5 / 4
    assert (human["inter_annotator"]["value"], human["inter_annotator"]["n"]) == (0.375, 4)
    assert human["intra_annotator"]["value"] == 1.0
    assert human["intra_annotator"]["low"] < 1.0


def test_the_gate_judges_what_general_text_lost(evaluated: Path):
    found = result(evaluated)
    known = found["evaluation"]["forgetting"]
    before, after = known["before"]["value"], known["after"]["value"]
    assert known["change"]["value"] == pytest.approx(after / before - 1.0, abs=1e-9)
    assert known["change"]["low"] <= known["change"]["value"] <= known["change"]["high"]
    assert known["passed"] is (known["change"]["value"] <= 1e-9)
    assert found["metrics"]["pretrain/general_change"] == known["change"]["value"]
    warned = [e["code"] for e in events(evaluated) if e["kind"] == "warning"]
    assert ("forgetting_gate" in warned) is (known["passed"] is False)
    html = (evaluated / "report.html").read_text(encoding="utf-8")
    said = "Passed" if known["passed"] else "Failed"
    assert f"{said} the forgetting gate: at most" in html
    assert known["probes"]["passed"] is None
    assert "<h3>General questions</h3><p>No gate was set." in html


def test_the_frontier_is_in_the_report(evaluated: Path):
    known = result(evaluated)["evaluation"]["frontier"]
    # step 3 has more KL than step 2 and less reward
    assert [(p["step"], p["best"]) for p in known] == [(1, True), (2, True), (3, False)]
    html = (evaluated / "report.html").read_text(encoding="utf-8")
    assert (html.count('class="best"'), html.count('class="other"')) == (2, 1)


def test_a_hostile_text_stays_text(evaluated: Path):
    html = (evaluated / "report.html").read_text(encoding="utf-8")
    outline = Outline(html)
    assert {"script", "img", "iframe", "link", "a"}.isdisjoint(outline.tags)
    assert HOSTILE in outline.texts  # an annotator's name
    assert "://" not in html.replace(HOSTILE, "")


def test_what_nobody_judged_is_said_to_be_unknown():
    nothing = {"value": 1.0, "low": 0.2, "high": 1.0, "n": 1}
    pairs = {
        "accuracy": nothing,
        "human": {"inter_annotator": None, "intra_annotator": None},
        "by_annotator": {},
        "by_agreement": {},
        "by_length": {},
        "calibration": {"ece": 0.0, "bins": [], "n": 1},
    }
    text = "\n".join(Outline(page({"reward": pairs}, base="demo")).texts)
    assert text.count("not known: no row says it") == 2


def test_one_prompt_has_no_interval_in_the_report():
    assert number({"value": 0.5, "low": None, "high": None, "n": 2}) == (
        "0.500, no interval (one prompt), n = 2"
    )
    assert number({"value": None, "low": None, "high": None, "n": 0}) == "not a number, n = 0"


def test_judgments_that_are_none_are_refused(tmp_path: Path, evaluated: Path):
    config = {
        "method": "evaluate",
        "base": {"source": str(evaluated.parent / "base")},
        "evaluate": {"reward_adapter": str(evaluated.parent / "reward" / "adapter")},
    }
    row = {**preference_row(0), "chosen": assistant("yes"), "judgments": [{"annotator": 3}]}
    run = make_run(tmp_path / "run", config, test=[row])
    assert main(["run", str(run)]) == 1
    assert "test row 1: judgments must be a list" in result(run)["reason"]
    assert not (run / "report.html").exists()
