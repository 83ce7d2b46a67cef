"""Texts from files: documents, labelled texts, questions with their answers, conversations."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace


class TextSet(models.Model):
    """A named, versioned list of texts; a changed list is a new version, never an edit."""

    class Kind(models.TextChoices):
        DOCUMENTS = "documents", "Documents"
        LABELLED = "labelled", "Labelled texts"
        QUESTIONS = "questions", "Questions with answers"
        CONVERSATIONS = "conversations", "Conversations"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="text_sets")
    name = models.SlugField(max_length=50)
    version = models.PositiveIntegerField(default=1)
    kind = models.CharField(max_length=13, choices=Kind.choices, default=Kind.DOCUMENTS)
    #: Where the texts come from and under which terms, in the words of whoever brought them.
    source = models.CharField(max_length=300, blank=True)
    licence = models.CharField(max_length=100, blank=True)
    #: What was counted as they came in (`training.services.text_figures`).
    figures = models.JSONField(default=dict)
    #: SHA-256 over a line for each document in order: the hash of its canonical JSON, its split.
    sha256 = models.CharField(max_length=64)
    n_train = models.PositiveIntegerField()
    #: Texts that are never trained on: what was learnt is measured on them.
    n_held_out = models.PositiveIntegerField()
    #: UTF-8 bytes of all texts together.
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "text set"
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "name", "version"], name="text_set_version_once"
            ),
            models.CheckConstraint(condition=models.Q(n_train__gte=1), name="text_set_not_empty"),
            models.CheckConstraint(
                condition=models.Q(
                    kind__in=["documents", "labelled", "questions", "conversations"]
                ),
                name="text_set_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class TextDocument(models.Model):
    """One text of a set: a document, a labelled text, a question, a conversation's beginning."""

    text_set = models.ForeignKey(TextSet, on_delete=models.CASCADE, related_name="documents")
    position = models.PositiveIntegerField()
    title = models.CharField(max_length=300, blank=True)
    text = models.TextField()
    held_out = models.BooleanField()
    #: What its row held beside the text, as the engine reads it: id, label, answers, messages, …
    fields = models.JSONField(default=dict)

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(
                fields=["text_set", "position"], name="text_document_position_once"
            )
        ]

    def __str__(self) -> str:
        return self.title or f"document {self.position + 1}"
