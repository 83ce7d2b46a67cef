"""Terms of a project, consent, a person's own page: what is told first, and what stays theirs."""

from __future__ import annotations

import pytest
from django.test import Client

from annotate.errors import AnnotateError, KeyReused, LimitReached, NotNamed, ProjectClosed
from annotate.formats.rankings import RankingRecord
from annotate.models import Annotator, Answer, Judgment, Participation, Project, Report
from annotate.selectors.my_work import judgments_of
from annotate.services.judging import submit_judgment
from annotate.services.participation import accept_consent, set_avoided, update_terms
from annotate.services.prefetching import lease_ahead
from annotate.services.projects import create_project
from annotate.services.rankings import store_rankings
from annotate.services.revising import revise_judgment
from annotate.services.serving import annotator_for, next_assignment
from annotate.views.questions import as_posted, posted_reply
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(people: People) -> Project:
    made = make_project(people.workspace)
    for number in range(30):
        make_comparison(made, prompt=f"Question {number}?", a=f"one {number}", b=f"two {number}")
    return made


@pytest.fixture
def bob(people: People) -> Annotator:
    return annotator_for(user=people.bob, workspace=people.workspace)


def judge_one(project: Project, annotator: Annotator, key: str = "k") -> Judgment:
    assignment = next_assignment(project=project, annotator=annotator)
    assert assignment is not None
    return submit_judgment(
        assignment=assignment,
        annotator=annotator,
        answer="left",
        idempotency_key=key,
        active_ms=60_000,
    )


def test_nothing_is_shown_before_a_person_consents(
    people: People, client: Client, project: Project, bob: Annotator
) -> None:
    update_terms(project=project, content_warning="Violence.", consent_text="I agree to **this**.")
    client.force_login(people.bob)
    page = client.get("/judge/helpful/").content.decode()
    assert "Violence." in page
    assert "<strong>this</strong>" in page
    assert "Question" not in page
    for serve in (next_assignment, lease_ahead):
        with pytest.raises(ProjectClosed, match="consent"):
            serve(project=project, annotator=bob)
    client.post("/judge/helpful/consent", {"version": project.consent_version})
    assert "Question" in client.get("/judge/helpful/").content.decode()
    part = Participation.objects.get(project=project, annotator=bob)
    assert part.consented_at is not None
    # Another text is another version, which is asked for anew.
    update_terms(project=project, consent_text="I agree to more.")
    assert "I agree to more." in client.get("/judge/helpful/").content.decode()
    with pytest.raises(AnnotateError, match="changed meanwhile"):
        accept_consent(project=project, annotator=bob, version=1)


def test_only_named_people_judge_a_restricted_project(
    people: People, project: Project, bob: Annotator
) -> None:
    update_terms(project=project, restricted=True, named=[people.rita])
    with pytest.raises(NotNamed):
        next_assignment(project=project, annotator=bob)
    rita = annotator_for(user=people.rita, workspace=people.workspace)
    assert next_assignment(project=project, annotator=rita) is not None
    update_terms(project=project, named=[people.bob, people.charlie])
    assert next_assignment(project=project, annotator=bob) is not None
    # Whoever is no member of the workspace is not named by it.
    assert Participation.objects.filter(project=project, named=True).count() == 1


def test_a_quota_and_a_days_limit_end_the_serving(project: Project, bob: Annotator) -> None:
    update_terms(project=project, daily_limit=2)
    judge_one(project, bob, "a")
    assert lease_ahead(project=project, annotator=bob) == []
    judge_one(project, bob, "b")
    with pytest.raises(LimitReached, match="2 here today"):
        next_assignment(project=project, annotator=bob)
    update_terms(project=project, daily_limit=None, quota=3)
    judge_one(project, bob, "c")
    with pytest.raises(LimitReached, match="your 3 here"):
        next_assignment(project=project, annotator=bob)


def test_a_topic_that_a_person_avoids_is_not_shown(project: Project, bob: Annotator) -> None:
    update_terms(project=project, topics=["Violence", "violence", " health "])
    assert project.topics == ["violence", "health"]
    set_avoided(annotator=bob, topics=["health"])
    with pytest.raises(NotNamed, match="health"):
        next_assignment(project=project, annotator=bob)
    with pytest.raises(AnnotateError, match="list of names"):
        update_terms(project=project, topics="violence")


def test_revising_adds_a_row_within_the_window(project: Project, bob: Annotator) -> None:
    first = judge_one(project, bob)
    said = {"judgment": first, "annotator": bob, "answer": "right", "idempotency_key": "r"}
    later = revise_judgment(**said, rationale="second thoughts")
    assert later.supersedes == first
    assert {first.answer, later.answer} == {Answer.A, Answer.B}
    assert later.active_ms == first.active_ms
    assert revise_judgment(**said, rationale="second thoughts") == later  # sent twice
    with pytest.raises(KeyReused):
        revise_judgment(**said, rationale="third")
    with pytest.raises(AnnotateError, match="that stands"):
        revise_judgment(**{**said, "idempotency_key": "old"})
    update_terms(project=project, revise_window_h=0)
    with pytest.raises(ProjectClosed, match="for 0 hours"):
        revise_judgment(**{**said, "judgment": later, "idempotency_key": "late"})
    later.refresh_from_db()
    other = make_annotator(project.workspace, name="src:other")
    with pytest.raises(AnnotateError, match="your own"):
        revise_judgment(**{**said, "judgment": later, "annotator": other, "idempotency_key": "x"})


def test_what_the_form_asks_is_filled_in_as_it_was_said_and_revised_with_the_answer(
    people: People, client: Client
) -> None:
    form = {
        "strength": 8,
        "aspects": [{"name": "helpful"}],
        "ratings": [{"name": "overall", "low": 1, "high": 5}],
        "reasons": ["tone", "facts"],
        "rationale": "required",
        "rewrite": "optional",
        "spans": ["error"],
        "known_model": True,
    }
    project = create_project(workspace=people.workspace, name="Full", slug="full", form=form)
    make_comparison(project, a="one", b="two")
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    held = next_assignment(project=project, annotator=bob)
    assert held is not None
    details = {
        "aspects": {"helpful": "left"},
        "ratings": {"left": {"overall": 4}, "right": {"overall": 2}},
        "reasons": ["facts"],
        "rewrite": {"of": "left", "text": "better"},
        "spans": [{"on": "right", "start": 0, "end": 2, "category": "error"}],
        "known_model": True,
    }
    first = submit_judgment(
        assignment=held, annotator=bob, answer="left", idempotency_key="k",
        rationale="clearer", strength=-3, details=details,
    )  # fmt: skip
    client.force_login(people.bob)
    address = f"/my-work/{first.pk}/"
    page = client.get(address)
    posted = as_posted(first)
    assert posted_reply(posted) == {"strength": -3, "details": details}
    for said in ("clearer", "better", 'value="-3" data-key="2" checked'):
        assert said in page.content.decode()
    sent = {**posted.dict(), "answer": "left", "strength": "-1", "key": "r"}
    refused = client.post(address, {**sent, "rationale": ""})
    assert refused.status_code == 422
    assert 'value="-1" data-key="4" checked' in refused.content.decode()
    assert client.post(address, sent).status_code == 302
    second = Judgment.objects.current().get()
    assert (second.supersedes, second.details) == (first, first.details)
    assert (abs(first.strength or 0), abs(second.strength or 0)) == (3, 1)


def test_neither_a_ranking_nor_a_pair_of_it_is_revised(people: People, client: Client) -> None:
    project = make_project(people.workspace, slug="ranked", kind="rankings")
    messages = [{"role": "user", "content": "Which?"}]
    store_rankings(project=project, records=[RankingRecord(1, messages, list("abcd"))])
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    held = next_assignment(project=project, annotator=bob)
    assert held is not None
    submit_judgment(
        assignment=held, annotator=bob, answer="ranking", idempotency_key="k",
        details={"ranking": [[1], [2], [3], [4]]},
    )  # fmt: skip
    client.force_login(people.bob)
    assert Judgment.objects.count() == 7
    assert ">Revise<" not in client.get("/my-work/").content.decode()
    for judgment in Judgment.objects.all():
        assert client.get(f"/my-work/{judgment.pk}/").status_code == 404


def test_my_work_holds_what_is_mine_and_nothing_else(
    people: People, client: Client, project: Project, bob: Annotator
) -> None:
    mine = judge_one(project, bob)
    theirs = make_judgment(mine.comparison, make_annotator(people.workspace), mine.answer)
    client.force_login(people.bob)
    page = client.get("/my-work/").content.decode()
    assert "A is better" in page
    assert page.count(">Revise<") == 1
    assert "judgments of others" not in page
    assert client.get(f"/my-work/{theirs.pk}/").status_code == 404
    update_terms(project=project, unblinded=True)
    assert "not enough yet: 1 judgments" in client.get("/my-work/").content.decode()
    assert "Nothing found" in client.get("/my-work/?q=zebra").content.decode()
    prompt = mine.comparison.prompt.messages[0]["content"]
    assert "A is better" in client.get("/my-work/", {"q": prompt}).content.decode()
    shown = client.get(f"/my-work/{mine.pk}/").content.decode()
    assert shown.count('aria-label="Answer') == 2
    sent = {"answer": "tie", "rationale": "equal", "key": "r"}
    assert client.post(f"/my-work/{mine.pk}/", sent).status_code == 302
    assert Judgment.objects.current().get(annotator=bob).answer == "tie"
    assert client.post(f"/my-work/{mine.pk}/", sent).status_code == 404  # it no longer stands


def test_a_search_finds_words_of_any_script_and_nothing_of_the_form(
    people: People, bob: Annotator
) -> None:
    project = make_project(people.workspace, slug="words")
    for text in ("怎么洗掉红酒？", 'She said "no" \\ then\nleft 🎈', "Ärger"):
        make_judgment(make_comparison(project, prompt=text), bob)
    for word, n in {
        "红酒": 1, "🎈": 1, 'said "NO" \\ then\nleft': 1, "rger": 1, "Ärger": 1,
        "user": 0, "content": 0, "u7ea2": 0, "%": 0, "白": 0,
    }.items():  # fmt: skip
        assert judgments_of(annotator=bob, search=word).count() == n, word


def test_my_hours_count_time_once(
    people: People, client: Client, project: Project, bob: Annotator
) -> None:
    first = judge_one(project, bob)
    revise_judgment(judgment=first, annotator=bob, answer="tie", idempotency_key="r")
    Project.objects.filter(pk=project.pk).update(name="=Helpful")
    client.force_login(people.bob)
    rows = client.get("/my-work/hours.csv").content.decode().splitlines()
    assert rows[0] == "day_utc,project,judgments,active_minutes"
    assert rows[1].endswith(",'=Helpful,2,1.0")


def test_a_report_reaches_the_admins_alone(
    people: People, client: Client, project: Project
) -> None:
    client.force_login(people.bob)
    client.post("/judge/helpful/report", {"text": "This is <b>too much</b>."})
    client.post("/judge/helpful/report", {"text": "   "})
    report = Report.objects.get()
    assert client.get("/projects/helpful/people").status_code == 403
    client.force_login(people.alice)
    assert "This is &lt;b&gt;too much" in client.get("/projects/helpful/people").content.decode()
    client.post(f"/projects/helpful/reports/{report.pk}/")
    report.refresh_from_db()
    assert report.settled_by == people.alice


def test_an_admin_sets_the_terms_on_a_page(
    people: People, client: Client, project: Project
) -> None:
    client.force_login(people.alice)
    sent = {
        "restricted": "on", "named": [people.bob.pk], "quota": "50", "revise_window_h": "1",
        "topics": "violence, health", "content_warning": "Harsh.\r\nReally.", "blur": "on",
        "repeat_every": "20", "repeat_after": "9",
    }  # fmt: skip
    assert client.post("/projects/helpful/people", sent).status_code == 302
    project.refresh_from_db()
    assert (project.quota, project.revise_window_h, project.blur) == (50, 1, True)
    assert (project.repeat_every, project.repeat_after) == (20, 9)
    assert (project.content_warning, project.consent_version) == ("Harsh.\nReally.", 2)
    assert Participation.objects.get(named=True).annotator.user == people.bob
    wrong = client.post("/projects/helpful/people", {**sent, "quota": "0"})
    assert wrong.status_code == 422
    page = client.get("/projects/helpful/people").content.decode()
    assert 'value="violence, health"' in page


def test_covered_texts_are_uncovered_by_their_reader(
    people: People, client: Client, project: Project
) -> None:
    client.force_login(people.bob)
    assert "data-uncover" not in client.get("/judge/helpful/").content.decode()
    update_terms(project=project, blur=True, break_minutes=45, daily_goal=50)
    page = client.get("/judge/helpful/").content.decode()
    assert "data-uncover" in page
    assert 'data-break="45"' in page
    assert "goal 50" in page
