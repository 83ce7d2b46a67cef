"""Commands of this app: expected errors of both apps become one clear message."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import CommandError

from annotate.errors import AnnotateError
from annotate.management.base import FriendlyCommand
from training.demo.bars import Bars
from training.errors import TrainingError, UnknownBase
from training.models import Job, ModelVersion, Run
from training.selectors.runs import run_progress
from training.services.versions import base_version


class TrainingCommand(FriendlyCommand):
    """A FriendlyCommand that knows training's errors too."""

    expected = (AnnotateError, TrainingError)

    def version(self, name: str, workspace: Any) -> ModelVersion:
        """A model version by its id, or the version of a base by its source."""
        if name.isdigit():
            found = ModelVersion.objects.filter(workspace=workspace, pk=int(name)).first()
            if found is None:
                raise UnknownBase(f"there is no model version {name} in workspace {workspace.slug}")
            return found
        return base_version(workspace=workspace, source=name)

    def wait_for(self, run: Run, *, poll_s: float = 0.5) -> None:
        """Show a run's progress until its job has ended. Raises CommandError if it ended badly."""
        bars = Bars(sys.stdout)
        while True:
            job = Job.objects.get(run=run)
            bars.show(run.stage or run.method, *run_progress(run))
            if job.state in (Job.State.SUCCEEDED, Job.State.FAILED, Job.State.CANCELLED):
                break
            time.sleep(poll_s)
        bars.close()
        if job.state != Job.State.SUCCEEDED:
            raise CommandError(f"{run} {job.state}: {job.detail}")
