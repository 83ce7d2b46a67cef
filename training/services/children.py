"""The engine's process: a group of its own, no secrets, and a life as long as our pulse."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from django.conf import settings

from training.services.leases import CHILD_PATIENCE

#: What a child may see of its parent's environment: never a key, a token or a database address.
#: A judge's own key and the database of a comparison's vectors are given to the one child each.
ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS", "VIRTUAL_ENV", "XDG_CACHE_HOME",
)  # fmt: skip


class Child:
    """A started engine. Whoever makes one closes it, whatever happens."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        attempt: str,
        *,
        alive: Callable[[], bool],
        given: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Start it on a run folder; it hears a pulse while `alive()`. Raises OSError.

        given: what its environment holds beside the usual. arguments: what else the engine shall
        do; the folder then only holds the log.
        """
        self.log = folder / "attempts" / attempt / "log.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.killed = False
        self._kills_before = out_of_memory_kills()
        patience_s = settings.JOB_LEASE_S * CHILD_PATIENCE
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        arguments = [*(arguments or ("run", str(folder), "--attempt", attempt))]
        arguments += ["--heartbeat-fd", str(read_end), "--patience-s", f"{patience_s:g}"]
        try:
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    [*command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=environment() | dict(given or {}),
                    cwd=settings.BASE_DIR,
                    pass_fds=[read_end],
                    start_new_session=True,
                )
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        self._closing = threading.Event()
        self._pulse = threading.Thread(
            target=self._beat, args=(alive, min(1.0, patience_s / 5)), name=f"pulse-{attempt[:8]}"
        )
        self._pulse.start()

    def _beat(self, alive: Callable[[], bool], pause_s: float) -> None:
        while not self._closing.is_set():
            if alive():
                # A full pipe is a pulse too; a broken one is a child that has ended.
                with contextlib.suppress(OSError):
                    os.write(self._write_end, b".")
            self._closing.wait(pause_s)

    def ask_to_stop(self) -> None:
        """SIGTERM: it writes a checkpoint and ends with 75."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.killed = True
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
            os.killpg(self.process.pid, number)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Whatever happens, no process of the group outlives this."""
        self._closing.set()
        self._pulse.join()
        self.kill()
        os.close(self._write_end)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended a process for its memory since this one began."""
        before, now = self._kills_before, out_of_memory_kills()
        return before is not None and now is not None and now > before

    def log_tail(self, size: int = 4000) -> str:
        with self.log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - size))
            text = handle.read().decode("utf-8", "replace")
        return text.replace("\x00", "\N{SYMBOL FOR NULL}")  # which PostgreSQL does not hold

    def last_words(self) -> str:
        """The last line it wrote, which for an ending it foresaw says why."""
        lines = [line for line in self.log_tail().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it wrote nothing"


def environment() -> dict[str, str]:
    """What the engine's process sees."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return kept | {
        "ENGINE_CACHE_DIR": str(settings.MODEL_CACHE_DIR),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",  # the log is read by people, a bar's thousand lines are not
        # Threads that wait by spinning take the processor from the web beside them: two busy
        # processes on two cores ran 30 % faster with waiting threads asleep, one alone as fast.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def out_of_memory_kills() -> int | None:
    """Processes that the kernel ended for want of memory so far; None where it does not say."""
    return count_kills([Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")])


def count_kills(sources: Sequence[Path]) -> int | None:
    """The sum of the `oom_kill` lines of the sources that have one (this cgroup, the machine)."""
    counts = []
    for source in sources:
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = [line.split() for line in source.read_text(encoding="ascii").splitlines()]
            counts += [int(words[1]) for words in lines if words[0] == "oom_kill"]
    return sum(counts) if counts else None
