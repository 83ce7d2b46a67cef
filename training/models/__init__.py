"""The training side of the loop: rounds, runs, their jobs, and the model versions they make."""

from training.models.jobs import DEVICE, TAKING_TURNS, Job, JobAttempt, JobEvent
from training.models.policies import ModelVersion
from training.models.rounds import Round
from training.models.runs import Run, RunCalibration, RunCheckpoint, RunEvent, RunMetric
from training.models.samples import Sample
from training.models.text_sets import TextDocument, TextSet

__all__ = [
    "DEVICE",
    "TAKING_TURNS",
    "Job",
    "JobAttempt",
    "JobEvent",
    "ModelVersion",
    "Round",
    "Run",
    "RunCalibration",
    "RunCheckpoint",
    "RunEvent",
    "RunMetric",
    "Sample",
    "TextDocument",
    "TextSet",
]
