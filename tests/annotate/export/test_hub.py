"""Pushing a folder: huggingface_hub's own client against a Hub on the loopback, well and ill."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants
from pytest_django.fixtures import Settings

from annotate.errors import HubRefused, HubUnreachable, PushStopped
from annotate.export.hub import Patience, push_folder
from annotate.export.pushes import Push
from tests.hub_server import TOKEN, Hub, running_hub

CARD = b"---\ntags:\n- trl\n---\n# A card\n"
FILES = {"README.md": CARD, "data/train.parquet": b"PAR1" + b"x" * 5000, "snapshot.json": b"{}"}
QUICK = Patience(base_s=0.01, cap_s=3.0)


@pytest.fixture
def push(tmp_path: Path) -> Push:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return Push(folder=tmp_path, repo="lab/data", repo_type="dataset", title="Snapshot 1")


def held(hub: Hub) -> dict[str, bytes]:
    files = dict(hub.repos["dataset", "lab/data"].files)
    files.pop(".gitattributes")
    return files


def test_a_folder_becomes_one_private_commit(hub: Hub, push: Push) -> None:
    pushed = push_folder(push=push)
    repo = hub.repos["dataset", "lab/data"]
    assert repo.private
    assert held(hub) == FILES
    assert [commit.title for commit in repo.pushes] == ["Snapshot 1"]
    assert pushed.commit == repo.commits[-1].id
    assert pushed.url == f"{hub.endpoint}/datasets/lab/data"
    assert hub.count("^PUT /upload/") == 1


def test_the_same_content_is_not_committed_again(hub: Hub, push: Push) -> None:
    first = push_folder(push=push)
    again = push_folder(push=dataclasses.replace(push, id="another"))
    assert again == first
    assert len(hub.repos["dataset", "lab/data"].pushes) == 1


def test_new_content_replaces_the_data_files_of_the_old(hub: Hub, push: Push) -> None:
    push_folder(push=push)
    (push.folder / "data" / "train.parquet").unlink()
    (push.folder / "data" / "train.jsonl").write_bytes(b"{}\n")
    push_folder(push=dataclasses.replace(push, id="another"))
    assert sorted(held(hub)) == ["README.md", "data/train.jsonl", "snapshot.json"]
    assert len(hub.repos["dataset", "lab/data"].pushes) == 2


TROUBLES = {
    "500 twice on commit": ("POST .*/commit/", 500, 2),
    "503 on the first look": ("GET /api/datasets/lab/data", 503, 1),
    "502 on creation": ("POST /api/repos/create", 502, 1),
    "429 on commit": ("POST .*/commit/", 429, 1),
    "500 on an upload": ("PUT /upload/", 500, 2),
    "reset in the middle of an upload": ("PUT /upload/", "reset", 2),
    "reset in the middle of the commit": ("POST .*/commit/", "reset", 1),
    "the reply to the commit is lost": ("POST .*/commit/", "lost", 1),
    "the reply to the creation is lost": ("POST /api/repos/create", "lost", 1),
    "somebody else committed first": ("POST .*/commit/", 412, 1),
    "a creation is in progress": ("POST .*/preupload/", 408, 1),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_trouble_that_passes_leaves_exactly_one_commit(
    hub: Hub, push: Push, trouble: tuple[str, int | str, int]
) -> None:
    hub.fail(*trouble)
    pushed = push_folder(push=push, patience=QUICK)
    repo = hub.repos["dataset", "lab/data"]
    assert [commit.id for commit in repo.pushes] == [pushed.commit]
    assert held(hub) == FILES
    assert hub.count(trouble[0]) <= 8
    assert not any(fault.times for fault in hub.faults)


def test_retry_after_is_honoured(hub: Hub, push: Push) -> None:
    hub.fail("POST .*/commit/", 429, headers={"Retry-After": "1"})
    started = time.monotonic()
    push_folder(push=push, patience=QUICK)
    assert 1.0 <= time.monotonic() - started < 3.0


def test_a_date_in_retry_after_is_honoured(hub: Hub, push: Push) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    hub.fail("POST .*/commit/", 503, headers={"Retry-After": later})
    started = time.monotonic()
    push_folder(push=push, patience=Patience(base_s=0.01, cap_s=5.0))
    assert 1.5 <= time.monotonic() - started < 5.0


def test_a_wait_beyond_the_ceiling_ends_the_push_at_once(hub: Hub, push: Push) -> None:
    hub.fail("POST .*/commit/", 429, headers={"Retry-After": "3600"})
    with pytest.raises(HubUnreachable, match=r"asks to wait 3600 s.*push again later"):
        push_folder(push=push, patience=QUICK)
    assert hub.count("/commit/") == 1


def test_eight_tries_are_all(hub: Hub, push: Push) -> None:
    hub.fail("POST .*/commit/", 500, times=100)
    with pytest.raises(HubUnreachable, match=r"answered 500.*tried 8 times"):
        push_folder(push=push, patience=QUICK)
    assert hub.count("POST .*/commit/") == 8
    assert hub.count("PUT /upload/") == 1
    assert hub.repos["dataset", "lab/data"].pushes == []


def test_a_silent_hub_runs_into_the_timeout(hub: Hub, push: Push, settings: Settings) -> None:
    close_session()  # the library makes its next client with the new setting
    settings.OUTGOING_TIMEOUT_S = 0.3
    hub.fail("POST .*/commit/", "silent", times=1)
    push_folder(push=push, patience=QUICK)
    close_session()
    assert len(hub.repos["dataset", "lab/data"].pushes) == 1


def test_a_hub_that_is_away_is_named(push: Push, hub: Hub, settings: Settings) -> None:
    settings.HF_ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:9 cannot be reached"):
        push_folder(push=push, patience=Patience(tries=2, base_s=0.01))


def test_a_push_can_be_stopped_between_two_tries(hub: Hub, push: Push) -> None:
    hub.fail("POST .*/commit/", 500, times=100)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(PushStopped):
        push_folder(push=push, patience=Patience(base_s=1000, cap_s=1000), stop=stop)


def test_a_public_repository_is_refused_unless_asked_for(hub: Hub, push: Push) -> None:
    repo = hub.seed("dataset", "lab/data", private=False)
    with pytest.raises(HubRefused, match=r"lab/data is public.*--public"):
        push_folder(push=push)
    assert repo.pushes == []
    push_folder(push=dataclasses.replace(push, public=True))
    assert len(repo.pushes) == 1


def test_public_makes_a_public_repository(hub: Hub, push: Push) -> None:
    push_folder(push=dataclasses.replace(push, public=True))
    assert not hub.repos["dataset", "lab/data"].private


def test_a_name_that_another_kind_holds_is_refused(hub: Hub, push: Push) -> None:
    hub.fail("POST /api/repos/create", 409)
    with pytest.raises(HubRefused, match=r"shows no dataset there.*choose another name"):
        push_folder(push=push)


@pytest.mark.parametrize(
    ("pattern", "status", "says"),
    [
        ("GET /api/datasets/lab/data", 401, "does not accept the token in HF_TOKEN"),
        ("POST /api/repos/create", 403, "may not write to lab/data"),
        ("POST .*/commit/", 403, "may not write to lab/data"),
        ("POST .*/commit/", 400, "refused the push to lab/data with status 400"),
    ],
)
def test_refusals_are_plain_and_not_repeated(
    hub: Hub, push: Push, pattern: str, status: int, says: str
) -> None:
    hub.fail(pattern, status, times=100)
    with pytest.raises(HubRefused, match=says):
        push_folder(push=push, patience=QUICK)
    assert hub.count(pattern) == 1
    assert not any(repo.pushes for repo in hub.repos.values())


def test_a_wrong_token_is_refused_and_never_shown(
    hub: Hub, push: Push, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.HF_TOKEN = "hf_wrongButSecret"
    caplog.set_level(logging.DEBUG)
    with pytest.raises(HubRefused, match="does not accept the token") as refused:
        push_folder(push=push)
    assert "hf_wrongButSecret" not in caplog.text + str(refused.value)


def test_the_token_is_never_logged(
    hub: Hub, push: Push, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fail("POST .*/commit/", 500, times=2)
    push_folder(push=push, patience=QUICK)
    assert "trying again" in caplog.text
    printed = "".join(capfd.readouterr())
    assert TOKEN not in caplog.text + printed


def test_without_a_token_nothing_is_sent(hub: Hub, push: Push, settings: Settings) -> None:
    settings.HF_TOKEN = ""
    with pytest.raises(HubRefused, match=r"there is no token.*HF_TOKEN"):
        push_folder(push=push)
    assert hub.seen == []


def test_offline_means_nothing_is_sent(
    hub: Hub, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubRefused, match="HF_HUB_OFFLINE is set"):
        push_folder(push=push)
    assert hub.seen == []


@pytest.mark.parametrize(
    "name",
    ["data", "a/b/c", "lab/", "/data", "lab/da ta", "lab/..", "lab/a--b", "lab/x.git", "-a/b",
     "lab/data?x=1", "lab/data\n", "https://hub/lab/data"],
)  # fmt: skip
def test_names_that_cannot_be_are_refused_before_anything_is_sent(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(HubRefused, match="write owner/name"):
        Push(folder=tmp_path, repo=name, repo_type="dataset", title="x")


def test_an_upload_link_to_a_private_neighbour_gets_nothing(
    hub: Hub, push: Push, settings: Settings
) -> None:
    with running_hub() as neighbour:
        hub.upload_host = neighbour.endpoint
        with pytest.raises(HubRefused, match="private address"):
            push_folder(push=push, patience=QUICK)
        assert neighbour.seen == []
        settings.OUTGOING_ALLOW = [neighbour.endpoint.removeprefix("http://")]
        with pytest.raises(HubRefused, match="was never uploaded"):
            push_folder(push=push, patience=QUICK)
        assert neighbour.count("PUT /upload/") == 1
