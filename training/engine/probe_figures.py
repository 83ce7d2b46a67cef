"""What probes say of two models: accuracies, their paired difference, what fell. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.engine.intervals import clustered_interval, wilson


def probe_figures(
    kinds: Sequence[str], before: Sequence[float], after: Sequence[float], gate: float | None
) -> dict[str, Any]:
    """`before`, `after`, `change`, `by_kind`, `gate` and `passed` of the same questions.

    before, after: 1 or 0 for each. Accuracies have Wilson's interval; that of the change resamples
    questions, each before with itself after. The gate is failed where the accuracy fell by more
    than it and the whole interval lies below 0: a few questions that go either way are no loss.
    """
    alone = [str(n) for n in range(len(kinds))]
    value, low, high = clustered_interval(
        [b - a for a, b in zip(before, after, strict=True)], alone
    )
    change = {"value": value, "low": low, "high": high, "n": len(kinds)}
    by_kind = {}
    for kind in dict.fromkeys(kinds):
        own = [n for n, each in enumerate(kinds) if each == kind]
        by_kind[kind] = {
            "before": accuracy([before[n] for n in own]),
            "after": accuracy([after[n] for n in own]),
        }
    fell = gate is not None and value < -gate and high is not None and high < 0.0
    return {
        "before": accuracy(before),
        "after": accuracy(after),
        "change": change,
        "by_kind": by_kind,
        "gate": gate,
        "passed": None if gate is None else not fell,
    }


def accuracy(right: Sequence[float]) -> dict[str, Any]:
    """The share of questions answered right, with Wilson's interval and n."""
    share = sum(right) / len(right)
    low, high = wilson(share, len(right))
    return {"value": share, "low": low, "high": high, "n": len(right)}


def what_fell(found: Mapping[str, Any]) -> str:
    """The sentence on failed probes: how many fewer were right, of which kinds, what was allowed.

    found: `probe_figures`.
    """
    kinds = ", ".join(
        f"{kind} from {count(each['before'])} to {count(each['after'])} of {each['before']['n']}"
        for kind, each in found["by_kind"].items()
        if each["after"]["value"] < each["before"]["value"]
    )
    return (
        f"general questions answered right fell from {count(found['before'])} to "
        f"{count(found['after'])} of {found['before']['n']} ({kinds}), and a fall by at most "
        f"{found['gate']:.1%} of them was allowed"
    )


def count(share: Mapping[str, Any]) -> int:
    return round(share["value"] * share["n"])
