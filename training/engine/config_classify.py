"""Section of config.json for sequence classification; see `config`."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.config_trl import check

CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Sequence classification: one of several labels for each text."""

    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the logits; empty: those of the training rows,
    sorted."""
    class_weights: str = "none"
    """none counts every row alike; balanced weighs a row by rows / (classes · rows of its class),
    so that every class counts alike."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes (arXiv 1512.00567, section 7)."""

    def __post_init__(self) -> None:
        names = self.labels
        blank = [name for name in names if not name.strip()]
        check(not blank, "classify.labels", names, "names that are not empty")
        check(len(set(names)) == len(names), "classify.labels", names, "each name once")
        check(len(names) != 1, "classify.labels", names, "two or more names, or none given")
        check(
            self.class_weights in CLASS_WEIGHTS,
            "classify.class_weights",
            self.class_weights,
            ", ".join(CLASS_WEIGHTS),
        )
        check(
            0.0 <= self.label_smoothing < 1.0,
            "classify.label_smoothing",
            self.label_smoothing,
            "0 up to below 1",
        )
