"""What can go wrong in annotation: one small tree, worded for the person who asked."""

from __future__ import annotations

from dataclasses import dataclass


class AnnotateError(Exception):
    """Raised when a request to this app cannot be honoured; its text may be shown to the user."""


class NotFound(AnnotateError):
    """Raised when a project, snapshot or file that was named does not exist in the workspace."""


class SlugTaken(AnnotateError):
    """Raised when a new project's short name is another project's already."""


class WrongKind(AnnotateError):
    """Raised when something for comparisons is asked of a project of labels, or the reverse."""


class OverlapInUse(AnnotateError):
    """Raised when an overlap is to fall below the judgments and leases a comparison already has."""


@dataclass(frozen=True)
class BadRow:
    """One refused row of an import: its line number (from 1) and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class ImportRefused(AnnotateError):
    """Raised when a file cannot be imported as a whole; nothing of it was stored."""

    def __init__(self, message: str, bad_rows: list[BadRow] | None = None) -> None:
        super().__init__(message)
        self.bad_rows = bad_rows or []


class NothingToFreeze(AnnotateError):
    """Raised when a snapshot would hold no rows (or no held-out rows)."""


class NotCalibrated(AnnotateError):
    """Raised when a machine's judgments are to be used that no admin has accepted."""


class LeaseLost(AnnotateError):
    """Raised when a judgment arrives for an assignment that is no longer its annotator's."""


class KeyReused(AnnotateError):
    """Raised when an idempotency key comes back with another body."""


class NothingToUndo(AnnotateError):
    """Raised when there is no judgment of this annotator that may still be undone."""


class ProjectClosed(AnnotateError):
    """Raised when a project is paused or closed and takes no judgments."""


class NotNamed(ProjectClosed):
    """Raised when a project is for other people, or about what this person asked not to see."""


class ConsentMissing(ProjectClosed):
    """Raised when a person has not accepted what a project asks before it shows anything."""


class LimitReached(ProjectClosed):
    """Raised when a person has judged as much as they may, in all or today."""


class HubRefused(AnnotateError):
    """Raised when a push cannot be done as asked (name, token, rights); trying again is no use."""


class HubUnreachable(AnnotateError):
    """Raised when the Hub did not answer as it should (network, 429, 5xx); later it may."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        #: What the Hub itself asked for, in seconds.
        self.retry_after_s = retry_after_s


class PushStopped(AnnotateError):
    """Raised when a push was told to stop before it knew of its commit."""
