"""Several processes at one run: one that fails, dies or is stopped takes the others along."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.test_distributed import assert_same, settings, together
from tests.engine.test_resume import HELD_OUT, PAIRS, curve
from tests.engine.tiny import events, make_run, result
from training.engine.__main__ import main

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """`main` takes over the process's signals; pytest wants its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_trouble_in_one_process_ends_all(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    config = settings("dpo", Path(tiny), "")
    alone = make_run(tmp_path / "alone", config, train=PAIRS, test=HELD_OUT)
    assert main(["run", str(alone)]) == 0
    nan, dead = (
        make_run(tmp_path / name, config, train=PAIRS, test=HELD_OUT) for name in ("nan", "dead")
    )
    leader, follower = together([nan, dead], trouble="nan death")
    # 1. a loss that is NaN in the follower: both stop before it reaches a weight
    assert "the loss of step 3 is not finite in another process" in result(nan)["reason"]
    assert "step-00000002 holds them" in result(nan)["reason"]
    assert "the loss of step 3 is nan" in follower.stderr
    # 2. the follower dies: the leader goes, and what was trained is there for the next start
    assert follower.returncode == 9
    assert leader.stdout.split() == ["1", "75"], leader
    assert "another process of this run ended" in leader.stderr
    assert not (dead / "result.json").exists()
    assert main(["run", str(dead)]) == 0  # by one process, which is as good
    assert [e["step"] for e in events(dead) if e["kind"] == "resumed"] == [2]
    assert_same(alone, dead)


def test_a_signal_stops_all_at_one_step(tiny: str, tmp_path: Path) -> None:
    optim = {"lr": 5e-3, "batch_size": 4, "epochs": 1000, "schedule": "constant"}
    folder = make_run(tmp_path / "long", settings("dpo", Path(tiny), "", optim=optim), train=PAIRS)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launched += ["--nproc-per-node", "2", "-m", "training.engine", "run", str(folder)]
    process = subprocess.Popen(launched, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while len(curve(folder)) < 3:
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not (folder / "result.json").exists()
    (end,) = [event for event in events(folder) if event["kind"] == "end"]
    assert end["status"] == "interrupted"
    last = max(curve(folder))
    newest = max(path.name for path in folder.glob("attempts/*/checkpoints/*"))
    assert newest == f"step-{last:08d}"
