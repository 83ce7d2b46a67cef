"""The annotation side of the loop, in the order data flows through it."""

from annotate.models.assignments import Assignment
from annotate.models.comparisons import Candidate, Comparison, Response, ResponseOrigin
from annotate.models.flags import Flag
from annotate.models.hotkeys import Hotkeys
from annotate.models.judges import Calibration, JudgeVersion, MachineJudgment
from annotate.models.judgments import Answer, Judgment
from annotate.models.participation import Participation, Report
from annotate.models.preferences import Aggregation, Preference
from annotate.models.projects import Annotator, Guideline, Project
from annotate.models.prompts import Prompt, PromptSet, PromptSetEntry, PromptTopic
from annotate.models.snapshots import Snapshot, SnapshotRow

__all__ = [
    "Aggregation",
    "Annotator",
    "Answer",
    "Assignment",
    "Calibration",
    "Candidate",
    "Comparison",
    "Flag",
    "Guideline",
    "Hotkeys",
    "JudgeVersion",
    "Judgment",
    "MachineJudgment",
    "Participation",
    "Preference",
    "Project",
    "Prompt",
    "PromptSet",
    "PromptSetEntry",
    "PromptTopic",
    "Report",
    "Response",
    "ResponseOrigin",
    "Snapshot",
    "SnapshotRow",
]
