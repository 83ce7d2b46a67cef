from __future__ import annotations

import json
import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotate.selectors.lookup import find_project, find_prompt_set, find_snapshot
from training.demo.bars import Bars
from training.management.base import TrainingCommand
from training.models import Round
from training.selectors.runs import run_progress
from training.services.launching import launch_round


class Command(TrainingCommand):
    help = "Launch a round: reward model, policy, evaluation, samples, new comparisons."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--snapshot", type=int, required=True, help="the snapshot's id")
        parser.add_argument("--method", required=True, choices=Round.Method.values)
        parser.add_argument("--fresh", required=True, help="prompt set the new policy answers")
        parser.add_argument("--reference", default="demo", help="version id or base source")
        parser.add_argument("--reward", help="id of a reward model to reuse")
        parser.add_argument("--sft", action="store_true", help="fine-tune on chosen answers first")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="STAGE.SECTION.FIELD=VALUE",
            help="for example policy.optim.lr=1e-4 or sample.sample.max_new_tokens=96",
        )
        parser.add_argument("--wait", action="store_true", help="show progress until it is over")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        reward = options["reward"]
        config: dict[str, Any] = {"sft": {}} if options["sft"] else {}
        for assignment in options["set"]:
            lay_over(config, assignment)
        launched = launch_round(
            project=project,
            snapshot=find_snapshot(options["snapshot"]),
            method=options["method"],
            reference=self.version(options["reference"], project.workspace),
            fresh_prompts=find_prompt_set(options["fresh"], workspace=project.workspace),
            reward_version=self.version(reward, project.workspace) if reward else None,
            config=config,
        )
        self.stdout.write(f"launched {launched} (id {launched.pk})")
        if options["wait"]:
            self.wait_for_round(launched)
        else:
            self.stdout.write("a worker runs it: manage.py worker")

    def wait_for_round(self, round: Round, *, poll_s: float = 0.5) -> None:
        bars = Bars(sys.stdout)
        while True:
            round.refresh_from_db()
            run = round.runs.order_by("-pk").first()
            if run is not None:
                bars.show(run.stage, *run_progress(run))
            if round.state in {*Round.FINAL, Round.State.AWAITING_VERDICT}:
                break
            time.sleep(poll_s)
        bars.close()
        self.stdout.write(f"{round}: {round.get_state_display().lower()} {round.reason}".strip())
        if round.state in (Round.State.FAILED, Round.State.CANCELLED):
            raise CommandError(f"{round} did not finish: {round.reason}")


def lay_over(config: dict[str, Any], assignment: str) -> None:
    """Put one STAGE.SECTION.FIELD=VALUE into a round's config. Raises CommandError."""
    path, equals, value = assignment.partition("=")
    names = path.split(".")
    if not equals or not all(names) or len(names) < 2:
        raise CommandError(f"--set {assignment}: write it as policy.optim.lr=1e-4")
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        parsed = value
    place = config
    for name in names[:-1]:
        place = place.setdefault(name, {})
    place[names[-1]] = parsed
