"""The methods that run outside rounds: what each reads, how it may train, what it makes.

A new one is a row here, its preset (`presets.STAGES`) and its name among `Run.Method`.
"""

from __future__ import annotations

from dataclasses import dataclass

from annotate.models import Project
from training.models import ModelVersion

#: How a model is trained: (title, sentence).
TUNINGS: dict[str, tuple[str, str]] = {
    "lora": ("LoRA", "An adapter on the base as it is. Small, quick, and a good first try."),
    "qlora": ("QLoRA", "An adapter on the base in 4 bits: a quarter of its memory."),
    "full": ("Full", "All weights of the base. Needs most memory; best for small encoders."),
}


@dataclass(frozen=True)
class Launchable:
    """A method that runs outside rounds, and what it reads."""

    title: str
    sentence: str
    #: snapshot or text_set.
    reads: str
    #: Of a snapshot: the kind of project it must be of.
    kind: str = ""
    #: Ways to train; none for a method that only measures.
    tunings: tuple[str, ...] = tuple(TUNINGS)
    #: What the version it makes is.
    makes: str = ""


LAUNCHABLE: dict[str, Launchable] = {
    "pretrain": Launchable(
        "Continued pretraining",
        "Learns the language of raw documents. Perplexity tells what was learnt and forgotten.",
        "text_set",
        makes=ModelVersion.Kind.PRETRAINED,
    ),
    "classify": Launchable(
        "Classification",
        "Learns to give texts the labels of a snapshot. Accuracy, macro-F1 and calibration tell.",
        "snapshot",
        kind=Project.Kind.LABELS,
        makes=ModelVersion.Kind.CLASSIFIER,
    ),
    "sft": Launchable(
        "Supervised fine-tuning",
        "Imitates the preferred answers of a snapshot.",
        "snapshot",
        kind=Project.Kind.COMPARISONS,
        makes=ModelVersion.Kind.SFT,
    ),
    "evaluate": Launchable(
        "Evaluation",
        "Measures a trained version on the held-out rows of a snapshot; trains nothing.",
        "snapshot",
        kind=Project.Kind.COMPARISONS,
        tunings=(),
    ),
}
