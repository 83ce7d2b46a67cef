"""Every page of the site: who may open it, and that another workspace's rows do not exist there."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import get_resolver

from annotate.models import Comparison, Project, Snapshot
from annotate.services.machine_judging import register_judge
from rlhf_platform.accounts.models import Membership
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_round, make_run, make_snapshot
from tests.training.test_launching_runs import make_text_set
from training.models import ModelVersion

JUDGE = {"url": "https://example.org/v1", "model": "m", "how": "verdict", "max_new_tokens": 9}
#: Pages without a member behind them: signing in, the probes, and allauth's own.
OPEN = {"home", "alive", "ready", "sign_in_by_link", "switch_workspace"}


@pytest.fixture
def addresses(people: People) -> dict[str, str]:
    """Every page that names a row of the lab, by the role it needs."""
    project = make_project(people.workspace)
    snapshot: Snapshot = make_snapshot(project)
    prompts = make_prompt_set(people.workspace)
    texts = make_text_set(people.workspace)
    round = make_round(project, snapshot=snapshot)
    run = make_run(round, state="failed")
    pair = Comparison.objects.filter(project=project).first()
    version = ModelVersion.objects.get(workspace=people.workspace)
    judge = register_judge(
        workspace=people.workspace, name="strict", rubric="Be strict.", settings=JUDGE
    )
    assert pair is not None
    member = Membership.objects.get(user=people.bob)
    return {
        f"/projects/{project.slug}/": "researcher",
        f"/projects/{project.slug}/settings": "researcher",
        f"/projects/{project.slug}/import": "researcher",
        f"/projects/{project.slug}/comparisons/": "researcher",
        f"/projects/{project.slug}/comparisons/{pair.pk}/": "researcher",
        f"/projects/{project.slug}/snapshots/{snapshot.number}/": "researcher",
        f"/projects/{project.slug}/snapshots/{snapshot.number}/train.jsonl": "researcher",
        f"/projects/{project.slug}/judges/": "researcher",
        f"/projects/{project.slug}/judges/{judge.pk}/": "researcher",
        f"/snapshots/{snapshot.pk}/preflight/": "researcher",
        f"/snapshots/{snapshot.pk}/preflight/panel": "researcher",
        f"/prompts/{prompts.pk}/": "researcher",
        f"/texts/{texts.pk}/": "researcher",
        f"/rounds/{round.pk}/": "researcher",
        f"/rounds/{round.pk}/live": "researcher",
        f"/rounds/{round.pk}/events": "researcher",
        f"/runs/{run.pk}/": "researcher",
        f"/jobs/{run.job.pk}/": "researcher",
        f"/models/{version.pk}/": "researcher",
        f"/projects/{project.slug}/people": "admin",
        f"POST /projects/{project.slug}/freeze": "researcher",
        f"POST /projects/{project.slug}/comparisons/{pair.pk}/reserve": "admin",
        f"POST /projects/{project.slug}/comparisons/{pair.pk}/topics": "researcher",
        f"POST /projects/{project.slug}/settings": "researcher",
        f"POST /projects/{project.slug}/import": "researcher",
        f"POST /projects/{project.slug}/judges/": "researcher",
        f"POST /projects/{project.slug}/judges/{judge.pk}/": "researcher",
        f"POST /projects/{project.slug}/judges/{judge.pk}/accept": "admin",
        f"POST /rounds/{round.pk}/cancel": "researcher",
        f"POST /jobs/{run.job.pk}/retry": "researcher",
        f"POST /models/{version.pk}/": "researcher",
        f"POST /members/{member.pk}/": "admin",
    }


LISTS = {
    "/projects/": "researcher",
    "/prompts/": "researcher",
    "/texts/": "researcher",
    "/rounds/": "researcher",
    "/plan/": "researcher",
    "/models/": "researcher",
    "/jobs/": "researcher",
    "/overview/": "admin",
    "/members/": "admin",
    "/account/tokens/": "annotator",
}


def ask(client: Client, address: str) -> int:
    verb, _, path = address.rpartition(" ")
    return client.post(path).status_code if verb else client.get(path).status_code


def test_an_outsider_finds_nothing(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    client.force_login(people.charlie)
    assert {address: ask(client, address) for address in addresses} == dict.fromkeys(addresses, 404)


def test_an_annotator_is_refused_and_a_stranger_signs_in(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    closed = [a for a, role in (addresses | LISTS).items() if role != "annotator"]
    assert {ask(client, address) for address in closed} == {302}
    client.force_login(people.bob)
    assert {address: ask(client, address) for address in closed} == dict.fromkeys(closed, 403)


def test_a_researcher_sees_all_but_the_admins_pages(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    client.force_login(people.rita)
    for address, role in (addresses | LISTS).items():
        if not address.startswith("POST"):
            assert ask(client, address) == (403 if role == "admin" else 200), address


def test_no_private_page_is_kept_by_a_browser_or_a_proxy(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    client.force_login(people.alice)
    for address in addresses | LISTS | {"/judge/": "annotator", "/judge/helpful/": "annotator"}:
        if not address.startswith("POST"):
            kept = client.get(address).headers.get("Cache-Control", "")
            assert {"no-store", "private"} <= set(kept.split(", ")), address


def test_odd_numbers_and_pages_are_no_fault_of_ours(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    client.force_login(people.alice)
    for number in ("0", "9" * 12, "9" * 19, "9" * 30):
        for place in (
            "rounds",
            "runs",
            "jobs",
            "models",
            "prompts",
            "texts",
            "projects/helpful/snapshots",
        ):
            assert client.get(f"/{place}/{number}/").status_code == 404
    for page in ("0", "-1", "abc", "9" * 30, "%00", "%ff"):
        for address in LISTS:
            assert client.get(f"{address}?page={page}&state={page}&show={page}").status_code == 200
    events = next(address for address in addresses if address.endswith("/events"))
    for after in ("", "a", "1.2", "9" * 12, "9.999999999999.999999999999", "%00", "1.1.1.1"):
        assert client.get(f"{events}?after={after}").status_code == 200


def test_a_body_that_is_too_large_is_not_read(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    def sent(**headers: str) -> HttpResponse:
        file = SimpleUploadedFile("blank.jsonl", b" " * 2_000_000)
        form = {"file": file, "format": "auto"}
        return client.post("/projects/helpful/import", form, **headers)

    # A stranger has no file to send, and the CSRF check would have written it to disk.
    assert sent().status_code == 413
    client.force_login(people.rita)
    assert sent().status_code == 422
    reply = sent(CONTENT_LENGTH=str(settings.MAX_UPLOAD_BYTES + 2_000_000))
    assert reply.status_code == 413
    assert "256 MB" in reply.content.decode()


def test_lists_show_nothing_of_another_workspace(
    addresses: dict[str, str], people: People, client: Client
) -> None:
    assert Project.objects.get(slug="helpful").name == "Helpful"
    client.force_login(people.charlie)
    for address in LISTS:
        page = client.get(address).content.decode()
        assert "Helpful" not in page, address
        assert "bob@example.org" not in page, address


def test_every_page_of_ours_names_the_role_it_needs() -> None:
    ours = [
        p
        for p in flat(get_resolver().url_patterns)
        if p.callback.__module__.split(".")[0] in ("annotate", "training", "rlhf_platform")
    ]
    unguarded = {p.name for p in ours if not hasattr(p.callback, "required_role")}
    assert unguarded <= OPEN | {p.name for p in ours if hasattr(p.callback, "cls")}


def flat(patterns: list) -> list:
    found = []
    for pattern in patterns:
        found += flat(pattern.url_patterns) if hasattr(pattern, "url_patterns") else [pattern]
    return found
