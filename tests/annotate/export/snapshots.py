"""A frozen snapshot of real rows for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import annotate
from annotate.models import Snapshot
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons
from rlhf_platform.accounts.models import Workspace
from tests.factories import make_project

DEMO_DATA = Path(annotate.__file__).parent / "demo_data"


def real_snapshot(workspace: Workspace, *names: str) -> Snapshot:
    project = make_project(workspace)
    for name in names or ("hh-helpful", "pandalm"):
        import_comparisons(project=project, path=DEMO_DATA / f"{name}.jsonl.gz")
    return freeze_snapshot(project=project)
