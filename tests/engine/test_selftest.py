"""The self-test passes here, and fails where a formula is wrong."""

from __future__ import annotations

import pytest
import torch

from training.engine import selftest
from training.engine.__main__ import main


def test_this_installation_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 0
    out = capsys.readouterr().out
    assert " 0 failed" in out
    for name in ("Bradley-Terry", "GAE", "NF4", "PPO on the bandit: J", "k3"):
        assert name in out


def test_a_wrong_formula_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_clip(
        logps: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, *, cliprange: float
    ) -> torch.Tensor:
        return -(logps - old).exp() * advantages

    monkeypatch.setattr(selftest, "policy_losses", without_clip)
    monkeypatch.setattr(selftest, "SECTIONS", (selftest.ppo_losses,))
    assert main(["selftest"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert "PPO's policy loss" in failed[0]


def test_a_number_that_is_none_does_not_pass() -> None:
    assert not selftest.check("x", [1.0], [float("nan")], 1.0, "").passed
    assert not selftest.check("x", [1.0], [1.0, 1.0], 1.0, "").passed
