"""report.json of the demo: what each stage did, in numbers nobody prettified."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("import", "agreement", "snapshot", "reward", "dpo", "ppo", "evaluate", "sample")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage as it ended. `seconds` is wall time, `peak_mb` the summed PSS of all processes."""

    name: str
    rows: int
    steps: int
    seconds: float
    peak_mb: float
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The stages so far; written after each one, so that a resumed demo keeps what it measured."""

    path: Path
    stages: dict[str, Stage] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Report:
        """The report at `path`, or an empty one where there is none or it is not ours."""
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            stages = {row["name"]: Stage(**row) for row in written["stages"]}
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            stages = {}
        return cls(path, stages)

    def add(self, stage: Stage) -> None:
        self.stages[stage.name] = stage
        self.write()

    def as_dict(self) -> dict[str, Any]:
        """`{total_s, peak_mb, stages}`; `total_s` is the sum over stages, resumed or not."""
        stages = [self.stages[name] for name in STAGES if name in self.stages]
        return {
            "total_s": round(sum(stage.seconds for stage in stages), 1),
            "peak_mb": round(max((stage.peak_mb for stage in stages), default=0.0), 1),
            "stages": [asdict(stage) for stage in stages],
        }

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(beside, self.path)
