"""What people do with an installation, in a process of its own that stays at hand.

python -m tests.faults.acts [--crash POINT --flag FILE]

A line of JSON on stdin is an act, {"act": name, "arguments": {…}}; a line on stdout is what it
gave, {"gave": …} or {"error": …}. Each act reaches the platform through its own services.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import django


def open_lab(*, base: str = "demo", pairs: int = 24, prompts: int = 2) -> None:
    """A workspace with a project, a frozen snapshot, fresh prompts and a base."""
    from rlhf_platform.accounts.models import Workspace
    from tests.factories import make_project
    from tests.training.rows import make_prompt_set, make_snapshot
    from training.services.versions import base_version

    workspace = Workspace.objects.create(slug="lab", name="Lab")
    make_snapshot(make_project(workspace), pairs=pairs)
    make_prompt_set(workspace, prompts=prompts)
    base_version(workspace=workspace, source=base, quantization="none")


def make_token() -> str:
    """The secret of an API token of a researcher."""
    from rlhf_platform.accounts.models import Role, Workspace
    from rlhf_platform.accounts.secrets import make_api_token
    from tests.people import make_member

    workspace = Workspace.objects.get()
    rita = make_member(workspace, "rita", Role.RESEARCHER)
    return make_api_token(user=rita, workspace=workspace, name="load")


def launch_samplings(*, count: int = 1, config: dict[str, Any] | None = None) -> list[int]:
    """The ids of so many queued jobs."""
    from annotate.models import Project, PromptSet
    from training.models import ModelVersion
    from training.services.launching import launch_sampling

    project, version = Project.objects.get(), ModelVersion.objects.filter(kind="base").get()
    prompt_set = PromptSet.objects.get()
    runs = [
        launch_sampling(project=project, version=version, prompt_set=prompt_set, config=config)
        for _ in range(count)
    ]
    return [run.job.pk for run in runs]


def launch_round(*, method: str, config: dict[str, Any], reuse_reward: bool = False) -> int:
    """The id of a round from the base; with the newest reward model where one is to be reused."""
    from annotate.models import Project, PromptSet
    from training.models import ModelVersion
    from training.services.launching import launch_round as launch

    project = Project.objects.get()
    rewards = ModelVersion.objects.filter(kind="reward").order_by("pk")
    round = launch(
        project=project,
        snapshot=project.snapshots.get(),
        method=method,
        reference=ModelVersion.objects.get(kind="base"),
        fresh_prompts=PromptSet.objects.get(),
        reward_version=rewards.last() if reuse_reward else None,
        config=config,
    )
    return round.pk


def time_launches(*, count: int) -> list[float]:
    """Seconds that each of `count` launches took, from the call to its return."""
    took = []
    for _ in range(count):
        started = time.monotonic()
        launch_samplings()
        took.append(time.monotonic() - started)
    return took


def cancel(*, job: int) -> None:
    from training.models import Job
    from training.services.controlling import cancel_job

    cancel_job(job=Job.objects.get(pk=job))


def retry(*, job: int) -> None:
    from training.models import Job
    from training.services.controlling import retry_job

    retry_job(job=Job.objects.get(pk=job))


def jobs() -> list[dict[str, Any]]:
    """Every job as it stands, oldest first; times are in seconds of the Unix epoch."""
    from training.models import Job

    return [
        {
            "id": job.pk,
            "state": job.state,
            "reason": job.reason,
            "detail": job.detail,
            "attempts": job.attempts,
            "strikes": job.strikes,
            "stage": job.run.stage if job.run else "",
            "folder": job.run.folder if job.run else "",
            "round": job.round.state if job.round else None,
            "lease_until": job.lease_until.timestamp() if job.lease_until else None,
        }
        for job in Job.objects.select_related("run", "round").order_by("pk")
    ]


def history(*, job: int) -> dict[str, Any]:
    """How a job came to be where it is: transitions, attempts, and what its run left in rows.

    Rows carry their primary keys, whose order is the order in which they were stored.
    """
    from training.models import Job

    found = Job.objects.select_related("run").get(pk=job)
    run = found.run
    assert run is not None
    return {
        "moves": list(found.events.order_by("pk").values_list("from_state", "to_state")),
        "finished": found.finished_at.timestamp() if found.finished_at else None,
        "attempts": [
            {
                "number": attempt.number,
                "token": attempt.token.hex,
                "started": attempt.started_at.timestamp(),
                "worker": attempt.worker,
                "ended": attempt.ended_at.timestamp() if attempt.ended_at else None,
                "outcome": attempt.outcome,
                "reason": attempt.reason,
            }
            for attempt in found.attempt_rows.all()
        ],
        "events": list(run.events.order_by("pk").values("pk", "attempt", "seq", "kind", "body")),
        "metrics": list(
            run.metrics.order_by("pk").values("pk", "attempt", "name", "step", "value")
        ),
        "checkpoints": list(run.checkpoints.order_by("pk").values("pk", "attempt", "step", "path")),
        "samples": run.samples.count(),
        "output": run.output_id,
        "result": run.result,
    }


def rows(related: Any, *fields: str) -> list[dict[str, Any]]:
    return list(related.order_by("pk").values("pk", "attempt", *fields))


def count_rows() -> dict[str, int]:
    """How much there is of what jobs make."""
    from annotate.models import Comparison, Response
    from training.models import JobEvent, ModelVersion, Run, Sample

    return {
        "runs": Run.objects.count(),
        "samples": Sample.objects.count(),
        "responses": Response.objects.count(),
        "comparisons": Comparison.objects.filter(origin="cold_start").count(),
        "versions": ModelVersion.objects.count(),
        "successes": JobEvent.objects.filter(to_state="succeeded").count(),
    }


ACTS: dict[str, Callable[..., Any]] = {
    act.__name__: act
    for act in (
        open_lab, make_token, launch_samplings, launch_round, time_launches, cancel, retry, jobs,
        history, count_rows,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crash")
    parser.add_argument("--flag")
    options = parser.parse_args()
    django.setup()

    from django.db import close_old_connections, connection

    import training.services.launching
    from tests.faults.crashing import arm

    assert training.services.launching  # armed points must find every module loaded
    if options.crash:
        arm(options.crash, options.flag)
    for line in sys.stdin:
        asked = json.loads(line)
        close_old_connections()
        try:
            reply = {"gave": ACTS[asked["act"]](**asked["arguments"])}
        except Exception as error:  # told to whoever asked, who may ask again
            connection.close()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
