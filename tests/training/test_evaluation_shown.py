"""An evaluation on the pages: key figures beside people, and its report, which may run nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotate.models import Answer
from tests.factories import make_annotator, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_curve, make_round, make_run, make_version
from tests.training.test_judged import pair
from training.errors import FailedGate
from training.models import Round, Run
from training.services.folders import data_lines
from training.services.promoting import promote_round

HOSTILE = "<script>alert(1)</script>"


def share(value: float, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def side(**more: Any) -> dict[str, Any]:
    same = share(0.25, 0.125, 0.5, 8)
    names = ("reward", "kl", "length", "eos_rate", "repeated_4grams", "refusal_rate")
    return dict.fromkeys(names, same) | {"distinct_1": 0.5, "distinct_2": None} | more


EVALUATION = {
    "reward": {
        "accuracy": share(0.625, 0.375, 0.875, 16),
        "human": {"inter_annotator": share(0.75, None, None, 3), "intra_annotator": None},
        "by_annotator": {"0123456789ab": share(0.6875, 0.5, 0.9, 16)},
        "by_agreement": {},
        "by_length": {"1 to 16 tokens": share(0.625, 0.375, 0.875, 16)},
        "calibration": {"ece": 0.1875, "bins": [], "n": 16},
    },
    "answers": {
        "win_rate": share(0.5, 0.25, 0.75, 8),
        "policy": side(length=share(31.5, 20.0, 40.0, 8)),
        "reference": side(),
        "examples": [],
    },
}


@pytest.fixture
def run(people: People, settings: Any, tmp_path: Path) -> Run:
    settings.RUNS_DIR = str(tmp_path)
    made = make_run(make_round(make_project(people.workspace)), stage="evaluate", state="succeeded")
    report = tmp_path / made.folder / "attempts" / "one" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(f"<!doctype html><h1>Evaluation</h1>{HOSTILE}", encoding="utf-8")
    made.result = {
        "status": "done", "metrics": {"reward/accuracy": 0.625}, "evaluation": EVALUATION,
        "report": "attempts/one/report.html", "seconds": 1.0, "peak_mb": 1.0, "steps": 1,
    }  # fmt: skip
    made.save()
    return made


def test_the_report_is_served_and_may_do_nothing(run: Run, people: People, client: Client) -> None:
    client.force_login(people.rita)
    reply = client.get(f"/runs/{run.pk}/report")
    assert reply.status_code == 200
    assert HOSTILE in reply.content.decode()  # as it lies there; the policy makes it inert
    assert reply["Content-Type"] == "text/html; charset=utf-8"
    assert reply["Content-Security-Policy"] == (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert "Content-Disposition" not in reply


def test_others_find_no_report(run: Run, people: People, client: Client) -> None:
    client.force_login(people.charlie)
    assert client.get(f"/runs/{run.pk}/report").status_code == 404
    client.force_login(people.bob)
    assert client.get(f"/runs/{run.pk}/report").status_code == 403


@pytest.mark.parametrize("named", [None, "../../secret.html", "/etc/passwd", "attempts/two.html"])
def test_only_a_file_of_the_run_is_its_report(
    named: str | None, run: Run, people: People, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "secret.html").write_text("secret", encoding="utf-8")
    assert run.result is not None
    run.result["report"] = named
    run.save()
    client.force_login(people.rita)
    assert client.get(f"/runs/{run.pk}/report").status_code == 404
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert f"/runs/{run.pk}/report" not in page


def test_key_figures_stand_on_the_page_with_their_intervals(
    run: Run, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    for words in (
        "0.375 to 0.875", "two people on the same pair agree", "no interval (one prompt)",
        "nobody judged a pair twice", "0.188", "a bootstrap of it is biased upwards",
        "the policy wins, by the reward model", "length in tokens: the policy", "20.0 to 40.0",
        "opens like a refusal, share: the reference", "0123456789ab", "1 to 16 tokens",
        f'href="/runs/{run.pk}/report"',
    ):  # fmt: skip
        assert words in page, words


def test_the_round_links_to_the_report_and_says_whom_people_prefer(
    run: Run, people: People, client: Client
) -> None:
    round = run.round
    assert round is not None
    round.policy_version = make_version(people.workspace, "policy", kind="policy")
    round.save()
    client.force_login(people.rita)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert f'href="/runs/{run.pk}/report"' in page
    assert "Old against new, by people" not in page
    ann = make_annotator(people.workspace, name="ann")
    for number in range(2):
        make_judgment(pair(round, number, new_is_a=True), ann, Answer.A)
    page = client.get(f"/rounds/{round.pk}/").content.decode()
    assert "the new answer wins, by people" in page
    assert "1.000" in page


@pytest.fixture
def forgetful(run: Run, people: People) -> Round:
    """A round that awaits its verdict; its policy's evaluation failed the gate."""
    round = run.round
    assert round is not None
    assert run.result is not None
    run.result["evaluation"] = {
        "forgetting": {
            "before": share(20.0, 18.0, 22.0, 16), "after": share(25.0, 22.0, 28.0, 16),
            "change": share(0.25, 0.125, 0.5, 16), "gate": 0.2, "passed": False,
            "source": "enclosed", "became": "rose",
        }
    }  # fmt: skip
    run.save()
    round.policy_version = make_version(people.workspace, "policy", kind="policy")
    round.state = Round.State.AWAITING_VERDICT
    round.save()
    return round


def test_a_policy_that_forgot_is_promoted_only_with_a_reason(forgetful: Round) -> None:
    with pytest.raises(FailedGate, match=r"rose by 25.0%, and at most 20.0% was allowed.*say why"):
        promote_round(round=forgetful, override="  ")
    forgetful.refresh_from_db()
    assert forgetful.state == Round.State.AWAITING_VERDICT
    promote_round(round=forgetful, override="It only answers our own questions.")
    forgetful.refresh_from_db()
    assert forgetful.state == Round.State.PROMOTED
    assert forgetful.reason.endswith("was allowed: It only answers our own questions.")


def asked(before: int, after: int, *, passed: bool | None, n: int = 50) -> dict[str, Any]:
    """What the engine says of general questions, all of one kind."""
    both = {
        side: share(right / n, 0.25, 0.75, n) for side, right in (("before", before),
                                                                   ("after", after))
    }  # fmt: skip
    change = share((after - before) / n, -0.25, -0.0625, n)
    return {
        **both, "change": change, "by_kind": {"arithmetic": both}, "gate": 0.1, "passed": passed,
        "source": "enclosed",
    }  # fmt: skip


@pytest.fixture
def unlearned(forgetful: Round) -> Round:
    """The same, where general text became no harder, and general questions did."""
    run = forgetful.runs.get()
    assert run.result is not None
    known = run.result["evaluation"]["forgetting"]
    known |= {"passed": True, "probes": asked(40, 32, passed=False)}
    run.save()
    return forgetful


def test_a_policy_that_lost_its_answers_is_promoted_only_with_a_reason(unlearned: Round) -> None:
    words = (
        r"gate: general questions .* from 40 to 32 of 50 \(arithmetic .*10.0% of them was allowed"
    )
    with pytest.raises(FailedGate, match=words) as refused:
        promote_round(round=unlearned)
    assert "perplexity" not in str(refused.value)
    promote_round(round=unlearned, override="Sums are done elsewhere.")
    unlearned.refresh_from_db()
    assert unlearned.reason.endswith("was allowed: Sums are done elsewhere.")


@pytest.mark.parametrize("passed", [True, None])
def test_questions_that_did_not_fail_stop_nobody(unlearned: Round, passed: bool | None) -> None:
    run = unlearned.runs.get()
    assert run.result is not None
    run.result["evaluation"]["forgetting"]["probes"]["passed"] = passed
    run.save()
    promote_round(round=unlearned)
    unlearned.refresh_from_db()
    assert (unlearned.state, unlearned.reason) == (Round.State.PROMOTED, "")


def test_both_gates_are_named_where_both_failed(unlearned: Round) -> None:
    run = unlearned.runs.get()
    assert run.result is not None
    run.result["evaluation"]["forgetting"]["passed"] = False
    run.save()
    with pytest.raises(FailedGate, match=r"rose by 25.0%, .* allowed; general questions"):
        promote_round(round=unlearned)


def test_the_questions_stand_on_the_page_by_kind(
    unlearned: Round, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    page = client.get(f"/runs/{unlearned.runs.get().pk}/").content.decode()
    for words in (
        "general questions answered right, share: the policy",
        "change of that share (failed the gate)",
        "-0.250 to -0.062",
        "General questions, by kind",
        "arithmetic: the reference",
    ):
        assert words in page, words
    page = client.get(f"/rounds/{unlearned.pk}/").content.decode()
    assert "fell from 40 to 32 of 50" in page


def test_the_page_warns_asks_why_and_keeps_the_answer(
    forgetful: Round, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    page = client.get(f"/rounds/{forgetful.pk}/").content.decode()
    assert "failed the forgetting gate" in page
    assert 'name="override"' in page
    refused = client.post(f"/rounds/{forgetful.pk}/promote", follow=True).content.decode()
    assert "say why" in refused
    sent = {"override": "Only our questions."}
    done = client.post(f"/rounds/{forgetful.pk}/promote", sent, follow=True).content.decode()
    assert "Only our questions." in done
    assert 'name="override"' not in done


def test_the_api_refuses_and_takes_a_reason(
    forgetful: Round, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    address = f"/api/v1/rounds/{forgetful.pk}/promote"
    refused = client.post(address, {}, content_type="application/json")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("failed-gate")
    sent = {"override": "Only our questions."}
    assert client.post(address, sent, content_type="application/json").status_code == 200


def test_reward_over_kl_is_drawn_and_goes_into_the_evaluation(
    run: Run, people: People, client: Client
) -> None:
    round = run.round
    assert round is not None
    round.method = "ppo"
    round.save()
    policy = make_run(round, state="succeeded")
    make_curve(policy, "reward/mean", 0.5, 1.5, 1.0)
    make_curve(policy, "kl/to_reference", 0.0, 0.25, 0.75)
    client.force_login(people.rita)
    page = client.get(f"/runs/{policy.pk}/").content.decode()
    assert "Reward over KL" in page
    assert page.count('<circle class="other"') == 1
    rows = [json.loads(line) for line in data_lines(run)["frontier"]]
    assert [(row["kl"], row["reward"]) for row in rows] == [(0.0, 0.5), (0.25, 1.5), (0.75, 1.0)]
    assert "Reward over KL" not in client.get(f"/runs/{run.pk}/").content.decode()
