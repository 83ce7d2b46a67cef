"""What can stop a run: one small tree, worded for the person who launched it."""

from __future__ import annotations


class EngineError(Exception):
    """Raised when a run cannot go on; `main` writes the text to result.json and exits with 1."""


class UsageError(EngineError):
    """Raised when the command line asks for what cannot be, though it parses."""


class ConfigError(EngineError):
    """Raised when config.json is not JSON, names unknown fields, or holds impossible values."""


class DataError(EngineError):
    """Raised when a data file is missing, empty, or a row of it has the wrong shape."""


class BaseModelError(EngineError):
    """Raised when a base or adapter cannot be loaded, or could only be loaded unsafely."""


class JudgeError(EngineError):
    """Raised when a judge cannot be asked, or never says which answer is better."""


class RewardSourceError(EngineError):
    """Raised when what scores PPO's answers cannot be asked, or answers with what is no score."""


class RunFolderError(EngineError):
    """Raised when the run folder is missing, finished, or belongs to another config."""


class OutOfSpaceError(EngineError):
    """Raised when the disk has no room for what is about to be written."""


class StepZeroError(EngineError):
    """Raised when a check before the first step fails: the run would not train what was asked."""


class NonFiniteLossError(EngineError):
    """Raised when a loss is NaN or infinite; says at which step, the last checkpoint stays good."""


class AlarmError(EngineError):
    """Raised when an alarm stops a run before any weights were worth keeping."""


class Interrupted(Exception):
    """Raised inside a loop after a signal, once a checkpoint is safe; `main` exits with 75."""
