"""The methods that run outside rounds: what each reads, how it may train, what it makes.

A new one is a row here, its preset (`presets.STAGES`) and its name among `Run.Method`.
"""

from __future__ import annotations

from dataclasses import dataclass

from annotate.models import Project
from training.models import ModelVersion, TextSet

#: How a model is trained: (title, sentence).
TUNINGS: dict[str, tuple[str, str]] = {
    "lora": ("LoRA", "An adapter on the base as it is. Small, quick, and a good first try."),
    "qlora": ("QLoRA", "An adapter on the base in 4 bits: a quarter of its memory."),
    "full": ("Full", "All weights of the base. Needs most memory; best for small encoders."),
}


@dataclass(frozen=True)
class Launchable:
    """A method that runs outside rounds, and what it reads: a snapshot, a text set, or either."""

    title: str
    sentence: str
    #: Kind of the projects whose snapshots it reads; empty where it reads none.
    kind: str = ""
    #: Kind of the text sets it reads; empty where it reads none.
    texts: str = ""
    #: Whether it may look things up in documents, beside what it reads.
    looks_up: bool = False
    #: Ways to train; none for a method that only measures, or chooses itself.
    tunings: tuple[str, ...] = tuple(TUNINGS)
    #: What the version it makes is.
    makes: str = ""

    @property
    def reads(self) -> list[str]:
        """What it reads, in words."""
        has = "labels" if self.kind == Project.Kind.LABELS else "compared answers"
        found = [f"a snapshot of {has}"] if self.kind else []
        if self.texts:
            found.append(f"a text set of {TextSet.Kind(self.texts).label.lower()}")
        return found


LAUNCHABLE: dict[str, Launchable] = {
    "pretrain": Launchable(
        "Continued pretraining",
        "Learns the language of raw documents. Perplexity tells what was learnt and forgotten.",
        texts=TextSet.Kind.DOCUMENTS,
        makes=ModelVersion.Kind.PRETRAINED,
    ),
    "classify": Launchable(
        "Classification",
        "Learns to give texts their labels. Accuracy, macro-F1 and calibration tell.",
        kind=Project.Kind.LABELS,
        texts=TextSet.Kind.LABELLED,
        makes=ModelVersion.Kind.CLASSIFIER,
    ),
    "sft": Launchable(
        "Supervised fine-tuning",
        "Imitates the preferred answers of a snapshot, or the answers of conversations.",
        kind=Project.Kind.COMPARISONS,
        texts=TextSet.Kind.CONVERSATIONS,
        makes=ModelVersion.Kind.SFT,
    ),
    "answer": Launchable(
        "Answering",
        "Answers the held-out questions and measures, from documents where you name some (RAG).",
        texts=TextSet.Kind.QUESTIONS,
        looks_up=True,
        tunings=(),
    ),
    "compare": Launchable(
        "Comparison",
        "Prompting, RAG and fine-tuning on the same questions, in one table. Takes the longest.",
        texts=TextSet.Kind.QUESTIONS,
        looks_up=True,
        tunings=(),
    ),
    "evaluate": Launchable(
        "Evaluation",
        "Measures a trained version on the held-out rows of a snapshot; trains nothing.",
        kind=Project.Kind.COMPARISONS,
        tunings=(),
    ),
}
