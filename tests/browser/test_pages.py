"""The researcher's and admin's pages in a real Chromium: quiet, narrow enough, live."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from annotate.formats.rankings import RankingRecord
from annotate.formats.reading import Row
from annotate.models import Comparison, Judgment
from annotate.services.judging import submit_judgment
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project
from annotate.services.rankings import store_rankings
from annotate.services.serving import annotator_for, next_assignment
from annotate.services.texts import store_texts
from rlhf_platform.accounts.models import Membership, Role
from rlhf_platform.accounts.secrets import make_sign_in_link
from tests.annotate.services.crowd import text_record
from tests.browser.test_judging_by_keyboard import CHROMIUM, FLAGS
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People, make_people
from tests.training import findings
from tests.training.rows import (
    make_attempt,
    make_checkpoint,
    make_curve,
    make_event,
    make_prompt_set,
    make_round,
    make_run,
    make_snapshot,
    make_version,
    write_attempt_file,
)
from training.models import Round, Run, TextSet
from training.services.text_rows import Document, one_document
from training.services.text_sets import store_text_set

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found"),
]
UGLY = "x" * 300 + " <script>window.pwned = 1</script> | a | b |\n|---|---|\n| " + "y" * 200


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page whose console must stay silent: errors and policy violations fail the test."""
    monkeypatch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(color_scheme=request.param)
        opened = context.new_page()
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "console",
            lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        yield opened
        browser.close()
    assert complaints == []


def enter(page: Page, server: LiveServer, people: People) -> None:
    page.goto(f"{server.url}/sign-in/{make_sign_in_link(user=people.alice)}/")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.wait_for_url("**/projects/")


def make_lab(people: People) -> Run:
    """Something ugly on every page."""
    project = make_project(people.workspace)
    project.name = "A project with a name that is rather long"
    project.save()
    snapshot = make_snapshot(project)
    pair = make_comparison(project, prompt=UGLY, a=UGLY, b="")
    for number in range(3):
        make_judgment(
            pair, make_annotator(people.workspace, name=f"a-very-long-source-name:{number}"),
            "ab"[number % 2], rationale=UGLY,
        )  # fmt: skip
    make_prompt_set(people.workspace)
    make_version(people.workspace, "a-version-with-a-long-name-" + "z" * 90, kind="reward")
    run = make_run(make_round(project, snapshot=snapshot))
    attempt = make_attempt(run.job, worker="w" * 120, reason="bug", detail=UGLY)
    for name in ("log.txt", "traceback.txt"):
        write_attempt_file(run, attempt, name, UGLY * 3)
    make_checkpoint(run, attempt, 123456789)
    make_event(run, 0, "start", total_steps=9, device="cpu", rows=4)
    make_event(run, 1, "warning", code="cut", message=UGLY)
    make_event(run, 2, "sample", step=1, prompt_id="x", prompt=[], text=UGLY)
    make_curve(run, "loss/train", 0.000001, 123456.0, -0.5)
    make_texts(people)
    make_findings(people)
    return run


def make_texts(people: People) -> None:
    """A set of every kind, each with something ugly in it."""
    rows: dict[str, list[Row]] = {
        "documents": [{"text": UGLY, "title": UGLY, "id": "x" * 400}],
        "labelled": [{"text": UGLY, "label": "l" * 200}, {"text": "b", "label": "<b>bold</b>"}],
        "questions": [
            {"question": UGLY, "answers": [UGLY], "documents": ["x" * 400]}, {"question": "سؤال"},
        ],
        "conversations": [
            {"messages": [{"role": "user", "content": UGLY}, {"role": "assistant", "content": "a"}]}
        ],
    }  # fmt: skip
    for kind, given in rows.items():
        made = [one_document(row, 1, kind) for row in given]
        store_text_set(
            workspace=people.workspace, kind=kind, name=kind, source="s" * 300, licence="l" * 100,
            documents=[each for each in made if isinstance(each, Document)],
        )  # fmt: skip


def make_findings(people: People) -> None:
    """A finished run of every method that shows what it found in its own way."""
    lab = people.workspace
    names = ["ham", "l" * 120, "<b>bold</b>", *(f"label {n}" for n in range(12))]
    matrix = [[9 if row == k else (row + k) % 3 for k in range(15)] for row in range(15)]
    findings.classifier(lab, names, matrix)
    findings.pretrained(lab)
    findings.comparison(lab, sft=UGLY)
    passage = {"n": 1, "document": "x" * 400, "start": 0, "end": len(UGLY)}
    rows = [
        {"id": f"{n}", "answer": UGLY, "scores": {"f1": 0.5}, "passages": [passage],
         "citations": [passage, {"n": 9, "document": None}]}
        for n in range(2)
    ]  # fmt: skip
    questions, documents = (TextSet.objects.get(name=name) for name in ("questions", "documents"))
    findings.answering(lab, questions, documents, rows)


def violations(page: Page) -> list[str]:
    """What axe-core holds against the page: the rule and the first element it names."""
    return [
        f"{found['id']}: {found['nodes'][0]['html'][:200]} ({len(found['nodes'])})"
        for found in Axe().run(page).response["violations"]
    ]


@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_is_quiet_accessible_and_does_not_scroll_sideways(
    page: Page, live_server: LiveServer, width: int
) -> None:
    people = make_people()
    run = make_lab(people)
    assert run.round is not None
    pair = Comparison.objects.order_by("-pk").first()
    assert pair is not None
    page.set_viewport_size({"width": width, "height": 844})
    enter(page, live_server, people)
    for address in (
        "/overview/", "/judge/", "/projects/", "/projects/helpful/", "/projects/helpful/settings",
        "/projects/helpful/import", "/projects/helpful/comparisons/",
        f"/projects/helpful/comparisons/{pair.pk}/", "/projects/helpful/snapshots/1/", "/prompts/",
        f"/prompts/{run.round.fresh_prompts.pk}/", "/rounds/", f"/rounds/{run.round.pk}/",
        f"/runs/{run.pk}/", "/models/",
        f"/models/{run.version.pk}/", "/jobs/", f"/jobs/{run.job.pk}/", "/members/",
        "/account/tokens/", "/judge/helpful/", "/plan/", "/help/", "/help/methods/ppo.md",
        "/advise/", "/runs/new/", "/my-work/", "/projects/helpful/people",
        f"/snapshots/{run.round.snapshot.pk}/preflight/", "/projects/helpful/judges/", "/texts/",
        *(f"/texts/{text_set.pk}/" for text_set in TextSet.objects.all()),
        *(f"/runs/{one.pk}/" for one in Run.objects.filter(round=None)),
    ):  # fmt: skip
        reply = page.goto(live_server.url + address)
        assert reply is not None
        assert reply.status == 200, address
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        assert page.evaluate("window.pwned") is None, address
        assert violations(page) == [], address
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, .button, nav a, select")]
             .filter((e) => e.offsetParent && e.getBoundingClientRect().height < 43)
             .map((e) => e.textContent.trim())"""
    )
    assert width == 1280 or small == []


FULL = {
    "strength": 8,
    "aspects": [{"name": "helpful"}, {"name": "correct", "definition": "No false claims."}],
    "ratings": [{"name": "overall", "low": 1, "high": 7}],
    "reasons": ["tone", "facts"],
    "rationale": "required",
    "rewrite": "optional",
    "spans": ["error", "unsafe"],
    "known_model": True,
    "conditions": [{"show": "reasons", "when": {"answer": ["tie"]}}],
}


def make_kinds(people: People) -> Judgment:
    """A project of every kind: plain, full, ranked, labels. Gives a judgment of Alice's."""
    plain = make_project(people.workspace, slug="plain")
    alice = annotator_for(user=people.alice, workspace=people.workspace)
    for number in range(2):
        make_comparison(plain, prompt=f"{number}?", a=UGLY)
    held = next_assignment(project=plain, annotator=alice)
    assert held is not None
    judgment = submit_judgment(assignment=held, annotator=alice, answer="left", idempotency_key="k")
    full = create_project(workspace=people.workspace, name="Full", slug="full", form=FULL)
    make_comparison(full, a=UGLY, b="short")
    ranked = create_project(
        workspace=people.workspace, name="Ranked", slug="ranked", kind="rankings"
    )
    messages = [{"role": "user", "content": "Which?"}]
    texts = [UGLY, "", *"abcdefg"]
    store_rankings(project=ranked, records=[RankingRecord(1, messages, texts)])
    labels = labels_from_text("good: as it should be\nbad")
    named = create_project(
        workspace=people.workspace, name="Labels", slug="labels", kind="labels", labels=labels
    )
    store_texts(project=named, records=[text_record(1)])
    return judgment


def test_every_kind_of_answer_is_asked_on_a_screen_that_is_accessible(
    page: Page, live_server: LiveServer
) -> None:
    people = make_people()
    judgment = make_kinds(people)
    enter(page, live_server, people)
    kinds = ("plain", "full", "ranked", "labels")
    for address in (
        *(f"/judge/{kind}/" for kind in kinds),
        *(f"/projects/{kind}/settings" for kind in kinds),
        f"/my-work/{judgment.pk}/",
    ):
        page.set_viewport_size({"width": 1280, "height": 844})
        page.goto(live_server.url + address)
        if address == "/judge/full/":  # a diff, a mark, and what is chosen
            page.locator("#judge[data-ready]").wait_for()
            page.keyboard.press("1")
            page.locator("textarea[name=rewrite]").press_sequentially("new")
            page.locator(".markable[data-side=right]").focus()
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Space")
            expect(page.locator(".marks li")).to_have_count(1)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
            assert violations(page) == [], (address, width)


def test_a_running_round_changes_under_the_readers_eyes(
    page: Page, live_server: LiveServer
) -> None:
    people = make_people()
    run = make_lab(people)
    assert run.round is not None
    enter(page, live_server, people)
    page.goto(f"{live_server.url}/rounds/{run.round.pk}/")
    numbers = page.locator("figure", has_text="loss/train").locator("details")
    numbers.locator("summary").press("Enter")
    make_event(run, 3, "progress", step=4, total_steps=9)
    make_curve(run, "dpo/margin", 0.1, 0.2)
    make_event(run, 4, "metrics", step=4, values={"dpo/margin": 0.2})
    page.get_by_text("dpo/margin", exact=True).wait_for()
    # What was open stays open, and whoever works by keyboard stays where they were.
    assert numbers.get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"

    Round.objects.filter(pk=run.round.pk).update(state="failed", reason="it broke")
    page.get_by_role("button", name="Try that stage again").wait_for()


def test_the_menu_and_the_skip_link_work_by_keyboard(page: Page, live_server: LiveServer) -> None:
    people = make_people()
    Membership.objects.create(workspace=people.elsewhere, user=people.alice, role=Role.ANNOTATOR)
    enter(page, live_server, people)
    page.goto(f"{live_server.url}/projects/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    menu = page.locator("details.menu")
    menu.locator("summary").press("Enter")
    page.keyboard.press("Escape")
    assert menu.get_attribute("open") is None
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Elsewhere").press("Enter")
    page.wait_for_url("**/judge/")
    assert page.get_by_text("No project is open").count() == 1
