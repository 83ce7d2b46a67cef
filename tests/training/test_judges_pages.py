"""The pages and the API of machine judges, up to a snapshot that counts one."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotate.models import Calibration, JudgeVersion, Project, Snapshot
from annotate.services.machine_judging import register_judge, store_machine_judgments
from tests.api.world import caller
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from training.engine.config_judge import RUBRIC, WORDING
from training.models import Job
from training.services.versions import base_version

URL = "https://8.8.8.8/v1"  # an address that needs no look-up
SETTINGS = {
    "base": "none", "quantization": "none", "adapter": None, "adapter_sha256": None,
    "wording": WORDING, "url": URL, "model": "m", "how": "verdict", "max_new_tokens": 256,
}  # fmt: skip
BY_PEOPLE, ALONE = 30, 12
pytestmark = pytest.mark.django_db


@pytest.fixture
def project(people: People, settings: Any) -> Project:
    settings.JUDGE_CALIBRATION_ROWS = 20
    settings.JUDGE_KEYS = ["KEY_OF_LAB=8.8.8.8:443"]
    project = make_project(people.workspace)
    someone = make_annotator(people.workspace, name="someone")
    for number in range(BY_PEOPLE + ALONE):
        comparison = make_comparison(project, prompt=f"Question {number}?")
        if number < BY_PEOPLE:
            make_judgment(comparison, someone)
    return project


@pytest.fixture
def rita(people: People, project: Project, client: Client) -> Client:
    client.force_login(people.rita)
    return client


def judged(project: Project, **settings: Any) -> JudgeVersion:
    """A judge that agrees with people on all but three comparisons, follows the place in one and
    says nothing of one."""
    judge = register_judge(
        workspace=project.workspace, name="strict", rubric=RUBRIC, settings={**SETTINGS, **settings}
    )
    orders = {0: ["first", "second"], 1: [None, "first"], 2: ["second", "second"]}
    rows = []
    for number, comparison in enumerate(project.comparisons.order_by("pk")):
        first, second = orders.get(number, ["first", "first"])
        choice = None if first is None else first if first == second else "tie"
        rows.append(
            {
                "id": comparison.digest,
                "choice": choice,
                "flipped": number == 0,
                "failed": choice is None,
                "orders": [first, second],
                "probability": None,
                "reasons": ["<script>alert(1)</script>", "b"],
                "tokens": 10,
            }
        )
    store_machine_judgments(judge=judge, project=project, rows=rows)
    return judge


def text_of(reply: Any) -> str:
    return str(reply.content.decode())


def test_an_empty_page_teaches_and_registers(rita: Client, people: People) -> None:
    page = "/projects/helpful/judges/"
    assert "No machine judges yet" in text_of(rita.get(page))
    form = {
        "name": "strict", "url": URL, "model": "m", "how": "verdict", "max_new_tokens": "256",
        "rubric": RUBRIC.replace(". ", ".\r\n"),
    }  # fmt: skip
    first = rita.post(page, form)
    judge = JudgeVersion.objects.get()
    assert first.headers["Location"] == f"{page}{judge.pk}/"
    assert "\r" not in judge.rubric
    assert judge.created_by == people.rita
    rita.post(page, form)
    assert JudgeVersion.objects.count() == 1
    rita.post(page, {**form, "rubric": "Be kind."})
    assert str(JudgeVersion.objects.latest("pk")) == "strict v2"
    base = base_version(workspace=people.workspace)
    local = {**form, "name": "small", "url": "", "model": "", "version": base.pk, "how": "letters"}
    assert rita.post(page, local).status_code == 302
    assert "small v1" in text_of(rita.get(page))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": ""}, "name one of them"),
        ({"url": "http://example.org/v1"}, "allowed: https://"),
        ({"url": "https://me:pw@example.org/v1"}, "without a name and password"),
        ({"model": ""}, "the model&#x27;s name on the server"),
        ({"how": "letters"}, "servers differ"),
        ({"rubric": "  "}, "required"),
        ({"name": "a b"}, "valid"),
    ],
)
def test_what_cannot_be_a_judge_is_said(rita: Client, change: dict[str, str], words: str) -> None:
    form = {
        "name": "strict", "url": URL, "model": "m", "how": "verdict", "max_new_tokens": "256",
        "rubric": RUBRIC,
    }  # fmt: skip
    reply = rita.post("/projects/helpful/judges/", form | change)
    assert reply.status_code == 422
    assert words in text_of(reply)
    assert not JudgeVersion.objects.exists()


def test_a_judging_is_launched_once_shown_and_cancelled(rita: Client, project: Project) -> None:
    judge = register_judge(
        workspace=project.workspace, name="strict", rubric=RUBRIC, settings=SETTINGS
    )
    page = f"/projects/helpful/judges/{judge.pk}/"
    assert "KEY_OF_LAB (for 8.8.8.8:443)" in text_of(rita.get(page))
    form = {
        "limit": "5", "by_people": "on", "key": "KEY_OF_LAB", "requests_per_minute": "30",
        "price_in": "1", "max_cost": "2",
    }  # fmt: skip
    for _ in range(2):
        assert rita.post(page, form).status_code == 302
    job = Job.objects.get()
    assert (job.kind, job.queue) == ("judge", "judging")
    assert job.payload == {
        "project": project.pk, "judge": judge.pk, "limit": 5, "by_people": True,
        "key": "KEY_OF_LAB",
        "bounds": {"requests_per_minute": 30.0, "price_in": 1.0, "max_cost": 2.0},
    }  # fmt: skip
    Job.objects.update(
        outcome={
            "step": 3,
            "total_steps": 5,
            "flipped": 1,
            "failed": 2,
            "tokens": 900,
            "cost": 0.125,
        }
    )
    shown = text_of(rita.get(page))
    assert "3 of 5" in shown
    assert "0.125" in shown
    assert "1 flipped, 2 without a verdict" in text_of(rita.get(f"/jobs/{job.pk}/"))
    again = rita.post(page, form | {"limit": "6"})
    assert again.status_code == 422
    assert f"is judging in Helpful already (job {job.pk})" in text_of(again)
    rita.post(f"/jobs/{job.pk}/cancel")
    job.refresh_from_db()
    assert job.state == "cancelled"
    refused = rita.post(page, form | {"max_cost": "0"})
    assert "judge.max_cost is 0.0" in text_of(refused)
    refused = rita.post(page, form | {"key": "DATABASE_URL"})
    assert refused.status_code == 422
    assert Job.objects.count() == 1


def test_a_local_judge_has_no_bounds_of_a_server(rita: Client, people: People) -> None:
    rita.get("/projects/helpful/judges/")
    judge = JudgeVersion.objects.create(
        workspace=people.workspace, name="small", version=1, rubric="x", digest="0" * 64,
        settings={"base": "demo", "quantization": "nf4", "adapter": None, "how": "letters"},
    )  # fmt: skip
    form = rita.get(f"/projects/helpful/judges/{judge.pk}/").context["form"]
    assert list(form.fields) == ["by_people", "limit", "max_tokens_total"]


def test_an_admin_accepts_with_a_reason_and_a_snapshot_counts_the_machine(
    rita: Client, project: Project, people: People
) -> None:
    judge = judged(project)
    page = f"/projects/helpful/judges/{judge.pk}/"
    shown = text_of(rita.get(page))
    assert "0.931" in shown  # 27 of 29
    assert "1 flipped with the order" in shown
    assert "Accept for training" not in shown
    refused = rita.post("/projects/helpful/freeze", {"test_percent": "30", "judge": judge.pk})
    assert refused.status_code == 302
    assert "strict v1 is not calibrated in Helpful" in text_of(rita.get("/projects/helpful/"))
    assert not Snapshot.objects.exists()
    assert rita.post(f"{page}accept", {"reason": "It agrees."}).status_code == 403

    rita.force_login(people.alice)
    assert "Accept for training" in text_of(rita.get(page))
    assert rita.post(f"{page}accept", {"reason": " "}).status_code == 422
    assert not Calibration.objects.exists()
    rita.post(f"{page}accept", {"reason": "93 % is what <b>we</b> agree among us."})
    assert Calibration.objects.get().accepted_by == people.alice
    assert "93 % is what &lt;b&gt;we&lt;/b&gt; agree" in text_of(rita.get(page))
    assert '<option value="">nothing: people alone</option>' in text_of(
        rita.get("/projects/helpful/")
    )

    rita.post("/projects/helpful/freeze", {"test_percent": "30"})
    plain = Snapshot.objects.get()
    assert "by_machine" not in plain.summary
    assert "Judged by a machine" not in text_of(rita.get("/projects/helpful/snapshots/1/"))
    rita.post("/projects/helpful/freeze", {"test_percent": "30", "judge": judge.pk})
    mixed = Snapshot.objects.latest("pk")
    assert 0 < mixed.summary["by_machine"] <= ALONE
    shown = text_of(rita.get("/projects/helpful/snapshots/2/"))
    assert f'<span class="figure">{mixed.summary["by_machine"]}</span> of' in shown
    assert "strict v1 (m)" in shown


def test_another_workspaces_judge_is_no_choice(
    rita: Client, project: Project, people: People
) -> None:
    theirs = register_judge(
        workspace=people.elsewhere, name="theirs", rubric="x", settings=SETTINGS
    )
    assert rita.get(f"/projects/helpful/judges/{theirs.pk}/").status_code == 404
    rita.post("/projects/helpful/freeze", {"test_percent": "30", "judge": theirs.pk})
    assert "has no such judge" in text_of(rita.get("/projects/helpful/"))
    assert not Snapshot.objects.exists()


def test_the_list_asks_no_more_for_more_judges(rita: Client, project: Project) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            rita.get("/projects/helpful/judges/")
        return len(found)

    judged(project)
    queries()
    one = queries()
    for number in range(4):
        judged(project, max_new_tokens=300 + number)
    assert queries() == one


def test_from_a_judge_to_a_snapshot_through_the_api(project: Project, people: People) -> None:
    rita, alice = (caller(one, people.workspace) for one in (people.rita, people.alice))
    place = "/projects/helpful/judges"
    made = rita.post(place, {"name": "strict", "url": URL, "model": "m"})
    assert made.status_code == 201, made.content
    judge = made.json()
    assert (judge["model"], judge["accepted"], judge["rubric"]) == (f"m at {URL}", False, RUBRIC)
    assert (
        rita.post(place, {"name": "strict", "url": URL, "model": "m"}).json()["id"] == judge["id"]
    )
    asked = {"limit": 5, "by_people": True, "key": "KEY_OF_LAB", "bounds": {"retries": 1}}
    job = rita.post(f"{place}/{judge['id']}/judgings", asked)
    assert (job.status_code, job.json()["state"]) == (201, "queued")
    assert rita.get(f"{place}/{judge['id']}/judgings").json()["count"] == 1
    wrong = rita.post(f"{place}/{judge['id']}/judgings", {"key": "SECRET_KEY"})
    assert wrong.status_code == 422
    assert "key 'SECRET_KEY' is not for 8.8.8.8:443" in wrong.json()["detail"]

    judged(project, **JudgeVersion.objects.get().settings)
    found = rita.get(f"{place}/{judge['id']}").json()
    assert (found["judged"], found["flipped"], found["failed"]) == (BY_PEOPLE + ALONE, 1, 1)
    figures = {row["name"]: row for row in found["figures"]}
    assert figures["agreement"]["value"] == pytest.approx(27 / 29)
    assert figures["first_place"]["n"] == 2 * 28 + 2
    refused = rita.post("/projects/helpful/snapshots", {"judge": "strict"})
    assert refused.status_code == 409
    assert "is not calibrated" in refused.json()["detail"]
    assert rita.post(f"{place}/{judge['id']}/accept", {"reason": "x"}).status_code == 403
    assert alice.post(f"{place}/{judge['id']}/accept", {}).status_code == 422
    accepted = alice.post(f"{place}/{judge['id']}/accept", {"reason": "It agrees."}).json()
    assert accepted["calibration"] | {"created_at": ""} == {
        "n": 29, "reason": "It agrees.", "by": "Alice", "created_at": "",
    }  # fmt: skip
    plain = rita.post("/projects/helpful/snapshots", {"test_fraction": 0.3}).json()
    assert (plain["judge"], plain["by_machine"]) == (None, 0)
    asked = {"test_fraction": 0.3, "judge": "strict:1"}
    mixed = rita.post("/projects/helpful/snapshots", asked).json()
    assert mixed["judge"] == "strict v1"
    assert mixed["by_machine"] > 0
    missing = rita.post("/projects/helpful/snapshots", {"judge": "kind"})
    assert missing.status_code == 404


def test_a_project_of_labels_has_no_machines(people: People, rita: Client) -> None:
    make_project(people.workspace, slug="topics", kind=Project.Kind.LABELS)
    judge = register_judge(
        workspace=people.workspace, name="strict", rubric=RUBRIC, settings=SETTINGS
    )
    assert "which no machine gives here" in text_of(rita.get("/projects/topics/judges/"))
    reply = rita.post(f"/projects/topics/judges/{judge.pk}/", {"limit": "5"})
    assert reply.status_code == 422
    assert "is of kind" in text_of(reply)
    assert not Job.objects.exists()
