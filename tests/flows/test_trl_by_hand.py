"""KTO, ORPO, GRPO and RLOO on the packaged base, each in the child process that a worker starts.

Minutes, so by hand:
    BY_HAND=kto,orpo,grpo,rloo python -m pytest -s tests/flows/test_trl_by_hand.py
"""

from __future__ import annotations

import os
import threading

import pytest

from annotate.services.ingest import store_prompt_set
from tests.annotate.export.snapshots import real_snapshot
from tests.engine.tiny import user
from tests.people import make_people
from training.engine.config import ONLINE_METHODS
from training.models import JobAttempt, Round, Run, RunEvent, RunMetric
from training.services import queueing
from training.services.executing import execute_run
from training.services.launching import launch_round
from training.services.rounds import cancel_round
from training.services.versions import base_version

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not os.environ.get("BY_HAND"), reason="minutes; BY_HAND=kto,… runs it"),
    pytest.mark.timeout(5400),
]
DATA = {"max_length": 192, "max_prompt_length": 96, "max_test_rows": 4}
FEW = {"optim": {"batch_size": 4, "max_steps": 2}, "data": DATA}
#: Attempts of one run, those that ended without a result for want of a pulse among them.
CLAIMS = 20
ONLINE = {"updates": 2, "prompts_per_update": 2, "max_new_tokens": 12, "eval_prompts": 2}


def worked_off(round: Round, stage: str) -> Run:
    """What the worker's loop does with the round's next run, until that has an end.

    An attempt whose worker was starved or stopped for a third of its lease ends without a result
    (the child lives by its pulse) and the job is queued again; the next claim goes on with it.
    """
    for _ in range(CLAIMS):
        claim = queueing.claim_next(queues=["training"])
        assert claim is not None
        execute_run(claim=claim, stopping=threading.Event())
        run = Run.objects.get(round=round, stage=stage)
        if run.result is not None:
            break
    attempts = list(JobAttempt.objects.filter(job__run=run).values_list("outcome", "detail"))
    assert run.result is not None, attempts
    assert run.result["status"] == "done", run.result["reason"]
    if len(attempts) > 1:
        print(f"{run.method}: {attempts}")
    round.refresh_from_db()
    return run


def said(run: Run) -> str:
    result = run.result or {}
    figures = {name: round(value, 4) for name, value in result["metrics"].items()}
    curve = {
        name: [round(point.value, 4) for point in RunMetric.objects.filter(run=run, name=name)]
        for name in ("loss/train", "reward/mean", "logps/chosen")
    }
    checked = RunEvent.objects.filter(run=run, kind="sampler_check").first()
    return (
        f"{run.method}: {result['steps']} steps, {result['seconds']} s, {result['peak_mb']} MB, "
        f"{figures}, {curve}, {checked.body if checked else ''}"
    )


@pytest.mark.django_db(transaction=True)
def test_each_method_trains_the_packaged_base() -> None:
    people = make_people()
    snapshot = real_snapshot(people.workspace, "hh-helpful")
    asked = {
        "project": snapshot.project,
        "snapshot": snapshot,
        "reference": base_version(workspace=people.workspace),
        "fresh_prompts": store_prompt_set(
            workspace=people.workspace,
            conversations=[user("How do I boil an egg?")],
            name="fresh",
            use="fresh",
        ),
    }
    reward = None
    for method in os.environ["BY_HAND"].split(","):
        policy = {method: ONLINE} if method in ONLINE_METHODS else FEW
        policy = {"data": DATA, **policy}
        config = {"reward": FEW, "policy": policy}
        launched = launch_round(method=method, config=config, reward_version=reward, **asked)
        if reward is None:
            print("\n" + said(worked_off(launched, "reward")))
            reward = launched.reward_version
        run = worked_off(launched, "policy")
        print(said(run))
        assert launched.policy_version is not None
        assert run.metrics.exists()
        cancel_round(round=launched)
