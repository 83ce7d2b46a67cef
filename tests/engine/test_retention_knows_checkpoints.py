"""What the engine writes as a checkpoint, the platform that deletes them takes for a good one."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.engine.tiny import assistant, make_run, user
from training.engine.__main__ import main
from training.selectors.checkpoints import NAME, what_is_wrong

CONVERSATIONS = [{"id": str(n), "messages": user(f"q {n}") + assistant("yes")} for n in range(4)]


def test_a_checkpoint_of_the_engine_verifies_and_a_changed_one_does_not(
    tiny: Path, tmp_path: Path
) -> None:
    config = {
        "method": "sft", "base": {"source": str(tiny)}, "optim": {"batch_size": 2, "epochs": 1},
        "checkpoint_every": 1, "checkpoint_keep": 0,
    }  # fmt: skip
    run = make_run(tmp_path / "run", config, train=CONVERSATIONS)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["run", str(run)]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    found = sorted(run.glob("attempts/*/checkpoints/*"))
    assert len(found) >= 2
    assert all(NAME.fullmatch(folder.name) for folder in found)
    assert [what_is_wrong(folder) for folder in found] == [""] * len(found)
    weights = found[0] / "tensors.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "tensors.safetensors has changed" in what_is_wrong(found[0])
    weights.unlink()
    assert "cannot be read" in what_is_wrong(found[0])
