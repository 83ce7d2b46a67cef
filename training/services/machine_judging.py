"""Letting a machine judge a project's comparisons: a run folder, the engine's process, the rows.

The folder of a judge and project stays until its judgments are stored, so that a killed or refused
run goes on without asking anything twice. The key for an endpoint is handed to that process alone,
through its environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from annotate.models import Comparison, JudgeVersion, Project
from annotate.selectors.judges import unjudged
from annotate.services.labels import require_kind
from annotate.services.machine_judging import register_judge, store_machine_judgments
from annotate.services.walls import check_one_workspace
from rlhf_platform.accounts.models import User
from training.engine.config import RunConfig, from_dict, to_dict
from training.engine.config_judge import KEY, WORDING
from training.engine.errors import EngineError
from training.engine.files import adapter_digest
from training.errors import CannotLaunch, TrainingError
from training.models import ModelVersion
from training.services.children import environment
from training.services.executing import ENGINE
from training.services.folders import write_durably
from training.services.versions import adapter_folder

#: Of the judge's section, what bounds a run and decides no verdict.
BOUNDS = (
    "timeout_s", "retries", "requests_per_minute", "max_tokens_total", "price_in", "price_out",
    "max_cost",
)  # fmt: skip
#: The longest question in tokens for a local base.
LENGTHS = {"max_length": 8192, "max_prompt_length": 8000}


@dataclass(frozen=True)
class Judged:
    """How many judgments are new, and what the engine's result says beside them."""

    stored: int
    metrics: Mapping[str, float]
    stopped: str | None


def judge_from(
    *, project: Project, name: str, config: Mapping[str, Any], actor: User | None = None
) -> JudgeVersion:
    """The judge's version that these settings of the engine make (`base`, `adapter`, `judge`).

    Raises CannotLaunch in the engine's words for settings that cannot be, and WrongKind for a
    project of labels, whose texts are no comparisons.
    """
    require_kind(project, Project.Kind.COMPARISONS)
    found = checked(config)
    assert found.judge is not None  # noqa: S101 - its method is judge
    judge = to_dict(found)["judge"]
    decides = {name: value for name, value in judge.items() if name not in (*BOUNDS, "rubric")}
    adapter = found.adapter.init_from
    return register_judge(
        workspace=project.workspace,
        name=name,
        rubric=found.judge.rubric,
        settings={
            "base": found.base.source,
            "quantization": found.base.quantization,
            "adapter": adapter,
            "adapter_sha256": digest_of(adapter) if adapter else None,
            "wording": WORDING,
            **decides,
        },
        actor=actor,
    )


def judge_at(
    *,
    project: Project,
    name: str,
    rubric: str,
    version: ModelVersion | None = None,
    url: str = "",
    model: str = "",
    how: str = "verdict",
    max_new_tokens: int = 256,
    actor: User | None = None,
) -> JudgeVersion:
    """`judge_from` for somebody who is not at this machine: a version held here, or a server.

    Raises CannotLaunch for both or neither, and for a version that writes no text.
    """
    if (version is None) == (not url):
        raise CannotLaunch("a judge is a model version or a server's address: name one of them")
    asked = {"rubric": rubric, "how": how, "max_new_tokens": max_new_tokens}
    if version is None:
        config: dict[str, Any] = {
            "base": {"source": "none"},
            "judge": {**asked, "url": url, "model": model or None},
        }
    else:
        check_one_workspace(version, project)
        if not version.writes:
            raise CannotLaunch(f"{version} writes no text, so it cannot judge")
        base = {key: version.base[key] for key in ("source", "quantization")}
        folder = adapter_folder(version)
        start = {"adapter": {"init_from": folder}} if folder else {}
        config = {"base": base, **start, "judge": {**asked, "model": model or None}}
    return judge_from(project=project, name=name, config=config, actor=actor)


def checked(config: Mapping[str, Any]) -> RunConfig:
    try:
        return from_dict({"method": "judge", "data": LENGTHS, **config})
    except EngineError as error:
        raise CannotLaunch(f"this judge cannot be: {error}") from error


def digest_of(adapter: str) -> str:
    try:
        return adapter_digest(Path(adapter))
    except OSError:
        raise CannotLaunch(f"{adapter} holds no adapter; name the folder of one") from None


def config_of(judge: JudgeVersion, bounds: Mapping[str, Any]) -> RunConfig:
    """The run config of a version, within these bounds. Raises CannotLaunch."""
    own = dict(judge.settings)
    base = {"source": own.pop("base"), "quantization": own.pop("quantization")}
    adapter, sha256, wording = (own.pop(name) for name in ("adapter", "adapter_sha256", "wording"))
    if wording != WORDING:
        raise CannotLaunch(f"{judge} was asked in another wording; register it again")
    if adapter and digest_of(adapter) != sha256:
        raise CannotLaunch(f"the adapter of {judge} has changed since; register it again")
    start = {"adapter": {"init_from": adapter}} if adapter else {}
    return checked({"base": base, **start, "judge": {**own, **bounds, "rubric": judge.rubric}})


def let_judge(
    *,
    judge: JudgeVersion,
    project: Project,
    limit: int | None = None,
    by_people: bool = False,
    bounds: Mapping[str, Any] | None = None,
    command: Sequence[str] = ENGINE,
) -> Judged:
    """Judge what this version has not judged, or go on where an earlier try ended.

    limit: at most so many comparisons. by_people: those that people judged (for a calibration).
    An earlier try's folder holds its own comparisons and bounds, which then count.
    Raises CannotLaunch where nothing is left, TrainingError with the engine's reason.
    """
    check_one_workspace(judge, project)
    folder = settings.DATA_DIR / "judging" / f"project-{project.pk}-judge-{judge.pk}"
    if not (folder / "config.json").is_file():
        asked = unjudged(project=project, judge=judge, by_people=by_people)[:limit]
        lines = [row_of(comparison) for comparison in asked]
        if not lines:
            raise CannotLaunch(f"{judge} has judged all there is to judge in {project}")
        write_folder(folder, config_of(judge, bounds or {}), lines)
    (folder / "result.json").unlink(missing_ok=True)
    keys = {KEY: os.environ[KEY]} if os.environ.get(KEY) else {}
    done = subprocess.run(
        [*command, "run", str(folder)], env=environment() | keys, cwd=settings.BASE_DIR, check=False
    )
    result = read_result(folder)
    if done.returncode != 0 or result.get("status") != "done":
        reason = result.get("reason") or f"the engine ended with status {done.returncode}"
        raise TrainingError(f"{judge} did not judge: {reason}")
    rows = list(read_lines(folder / result["judgments"]))
    stored = store_machine_judgments(judge=judge, project=project, rows=rows)
    shutil.rmtree(folder)
    return Judged(stored=stored, metrics=result["metrics"], stopped=result["reason"])


def row_of(comparison: Comparison) -> str:
    first, second = comparison.pair
    row = {
        "id": comparison.digest,
        "prompt": comparison.prompt.messages,
        "first": first.text,
        "second": second.text,
    }
    return json.dumps(row, ensure_ascii=False)


def write_folder(folder: Path, config: RunConfig, lines: Sequence[str]) -> None:
    """The run folder; config.json last, since with it the folder counts."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_durably(folder / "data" / "comparisons.jsonl", "".join(f"{line}\n" for line in lines))
    write_durably(folder / "config.json", json.dumps(to_dict(config), indent=2) + "\n")


def read_result(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def read_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
