"""The circle again, by HTTP alone: upload, judge, freeze, train a tiny model, promote, judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.api.world import Caller, caller
from tests.engine.tiny import save_tiny
from tests.flows.test_the_loop import SHORT, SMALL, work_off_the_queue
from tests.people import make_people
from training.services.versions import base_version


def jsonl(rows: list[dict[str, Any]]) -> SimpleUploadedFile:
    return SimpleUploadedFile("rows.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())


def good(reply: Any) -> Any:
    assert reply.status_code in (200, 201), reply.content
    return reply.json()


def every_event(rita: Caller, run: int) -> list[dict[str, Any]]:
    seen, cursor, more = [], "0.0", True
    while more:
        page = good(rita.get(f"/runs/{run}/events", after=cursor, limit=5))
        seen += page["results"]
        cursor, more = page["next"], page["more"]
    return seen


@pytest.mark.django_db(transaction=True)
def test_a_program_can_close_the_loop(tmp_path: Path) -> None:
    people = make_people()
    rita = caller(people.rita, people.workspace)
    bob = caller(people.bob, people.workspace)
    # A folder on the server is registered there, never through the API.
    base = base_version(
        workspace=people.workspace, source=str(save_tiny(tmp_path / "tiny")), quantization="none"
    )
    good(rita.post("/projects", {"slug": "loop", "name": "Loop"}))
    rows = [{"prompt": f"Q {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(24)]
    assert good(rita.upload("/projects/loop/imports", file=jsonl(rows)))["judgments_new"] == 24
    fresh = good(
        rita.upload("/prompt-sets", name="fresh", file=jsonl([{"prompt": f"F {n}?"} for n in "ab"]))
    )
    snapshot = good(rita.post("/projects/loop/snapshots", {"test_fraction": 0.25}))
    launched = good(
        rita.post(
            "/rounds",
            {
                "project": "loop",
                "snapshot": snapshot["id"],
                "method": "dpo",
                "reference": base.pk,
                "fresh_prompts": fresh["id"],
                "config": {
                    "reward": SMALL,
                    "policy": SMALL,
                    "sample": SHORT,
                    "evaluate": {"evaluate": {"generate": 2, "max_new_tokens": 4}},
                },
            },
        )
    )
    work_off_the_queue()
    done = good(rita.get(f"/rounds/{launched['id']}"))
    assert done["state"] == "awaiting_verdict", done["reason"]
    assert done["comparisons_opened"] >= 2

    policy_run = next(run["run"] for run in done["runs"] if run["stage"] == "policy")
    events = every_event(rita, policy_run)
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert {"progress", "metrics"} <= {event["kind"] for event in events}
    curves = good(rita.get(f"/runs/{policy_run}/metrics", name="dpo/margin"))["results"]
    assert len(curves[0]["points"]) == 2
    run = good(rita.get(f"/runs/{policy_run}"))
    assert (run["state"], run["step"]) == ("succeeded", run["total_steps"])
    assert not run["result"]["adapter"].startswith("/")

    promoted = good(rita.post(f"/rounds/{launched['id']}/promote"))
    version = good(rita.get(f"/versions/{promoted['policy_version']}"))
    assert (version["state"], version["parent"]) == ("promoted", base.pk)
    assert version["lineage"]["judgments"] == snapshot["n_train"] + snapshot["n_test"]

    served = good(bob.post("/projects/loop/next"))
    assert {"left", "right"} <= set(served)
    said = good(
        bob.post(
            f"/assignments/{served['id']}/judgment", {"answer": "right", "idempotency_key": "k"}
        )
    )
    assert said["judgment"]["answer"] == "right"
    assert good(rita.get(f"/versions/{version['id']}"))["lineage"]["answered"] == 1
