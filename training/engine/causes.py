"""Why a run ended badly, in words that whoever launched it can act on. Holds no torch."""

from __future__ import annotations

from training.engine.errors import AlarmError, EngineError
from training.engine.files import is_full

#: Parts of the messages with which libraries say that memory ran out, beside their own classes.
OUT_OF_MEMORY = (
    "can't allocate memory",  # torch on a processor
    "out of memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

REFUSED, OOM, BUG, NO_SPACE, ALARM = "refused", "oom", "bug", "no_space", "alarm"


def cause_of(error: BaseException) -> str:
    """ "no_space", "oom", "alarm", "refused" (one of ours, with a sentence), or "bug"."""
    if is_full(error):
        return NO_SPACE
    seen: BaseException | None = error
    while seen is not None:
        names = {kind.__name__ for kind in type(seen).__mro__}
        said = isinstance(seen, RuntimeError) and any(part in str(seen) for part in OUT_OF_MEMORY)
        if said or names & {"OutOfMemoryError", "MemoryError"}:
            return OOM
        seen = seen.__cause__
    if isinstance(error, AlarmError):
        return ALARM
    return REFUSED if isinstance(error, EngineError) else BUG


def in_words(error: BaseException, cause: str) -> str:
    """The sentence for result.json."""
    if cause == OOM:
        detail = str(error).strip().split("\n")[0]
        return f"memory ran out{f' ({detail})' if detail else ''}; a smaller row_budget needs less"
    if cause == BUG:
        return f"{type(error).__name__}: {error}"
    if cause == NO_SPACE and not isinstance(error, EngineError):
        return f"the disk is full ({error}); make room and start again"
    return str(error)
