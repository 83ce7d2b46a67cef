"""What can go wrong in training's services; messages are written for the person who asked."""

from __future__ import annotations


class TrainingError(Exception):
    """Raised when a request to this app cannot be honoured; its text may be shown to the user."""


class UnknownBase(TrainingError):
    """Raised when a base model cannot be found by the name that was given."""


class UnknownVersion(TrainingError):
    """Raised when a model version that was named does not exist."""


class CannotLaunch(TrainingError):
    """Raised when a round or run is impossible as asked (too few rows, missing reward model, …)."""


class LaunchKeyReused(CannotLaunch):
    """Raised when a launch comes with the key of an earlier launch of something else."""


class IllegalTransition(TrainingError):
    """Raised when a job, run or round is asked to move to a state it cannot reach from here."""


class FailedGate(TrainingError):
    """Raised when a policy that failed a gate is to be promoted and no reason is given."""


class LostLease(TrainingError):
    """Raised when a write carries a token that is no longer the job's; nothing was written."""
