"""Freezing from the page, reading a snapshot, and taking its rows away."""

from __future__ import annotations

import hashlib
from typing import Any

from django.test import Client

from annotate.models import Snapshot
from annotate.selectors.snapshots import snapshot_lengths
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_snapshot


def test_a_snapshot_is_frozen_with_the_share_asked_for(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    make_snapshot(project)
    client.force_login(people.rita)
    reply = client.post("/projects/helpful/freeze", {"test_percent": 40}, follow=True)
    made = Snapshot.objects.get(number=2)
    assert (made.rule["test_fraction"], made.created_by) == (0.4, people.rita)
    assert "Snapshot 2 is frozen" in reply.content.decode()


def test_what_cannot_be_frozen_is_said_on_the_project(people: People, client: Client) -> None:
    make_project(people.workspace)
    client.force_login(people.rita)
    for percent in ("20", "0", "x"):
        reply = client.post("/projects/helpful/freeze", {"test_percent": percent}, follow=True)
        assert "message error" in reply.content.decode()
    assert not Snapshot.objects.exists()


def test_the_page_tells_what_is_in_it(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    tie = make_comparison(project, prompt="tie?")
    make_judgment(tie, make_annotator(people.workspace, name="teacher"), "tie")
    snapshot = make_snapshot(project)
    client.force_login(people.rita)
    with django_assert_max_num_queries(16):
        page = client.get("/projects/helpful/snapshots/1/").content.decode()
    assert snapshot.sha256 in page
    assert "1 judged comparisons left out: 1 tie" in page
    assert 'class="picture histogram"' in page
    assert "nothing was judged by two people yet" in page


def test_both_files_sorted_by_row_hash_give_the_fingerprint(people: People, client: Client) -> None:
    snapshot = make_snapshot(make_project(people.workspace))
    client.force_login(people.rita)
    rows = []
    for split in ("train", "test"):
        reply = client.get(f"/projects/helpful/snapshots/1/{split}.jsonl")
        assert f"helpful-snapshot-1-{split}.jsonl" in reply.headers["Content-Disposition"]
        rows += b"".join(reply.streaming_content).decode().split("\n")[:-1]
    rows.sort(key=lambda row: hashlib.sha256(row.encode()).digest())
    whole = "".join(f"{row}\n" for row in rows)
    assert hashlib.sha256(whole.encode()).hexdigest() == snapshot.sha256


def test_lengths_are_counted_in_words(people: People) -> None:
    # Every chosen answer is "yes, N" (2 words), every rejected one "no, not N" (3 words).
    snapshot = make_snapshot(make_project(people.workspace), pairs=8)
    lengths = snapshot_lengths(snapshot=snapshot)
    assert lengths is not None
    assert (lengths.median_chosen, lengths.median_rejected) == (2, 3)
    assert (lengths.longer, lengths.n, lengths.share) == (0, 8, 0.0)
    assert (lengths.chosen[2], lengths.rejected[3]) == (8, 8)
