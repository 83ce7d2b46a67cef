"""Prompts (the conversation so far) and named, versioned sets of them."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace


class Prompt(models.Model):
    """A conversation that waits for an answer: `[{"role": "user", "content": "…"}, …]`."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    messages = models.JSONField()
    #: SHA-256 of the canonical JSON of `messages`.
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "digest"], name="prompt_once_per_workspace"
            )
        ]

    def __str__(self) -> str:
        return str(self.messages[-1]["content"])[:80]


class Words(models.Func):
    """What is said in a JSON column of messages, as text.

    The column itself is no text to search: SQLite holds it with every letter beyond ASCII escaped,
    and both hold the names of the roles.
    """

    output_field = models.TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = (
            "(SELECT group_concat(json_extract(value, '$.content'), char(10)) "
            "FROM json_each(%(expressions)s))"
        )
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = (
            "(SELECT string_agg(said ->> 'content', chr(10)) "
            "FROM jsonb_array_elements(%(expressions)s) AS said)"
        )
        return self.as_sql(compiler, connection, template=template, **extra)


class PromptTopic(models.Model):
    """What a prompt is about, by a short name that people may opt out of."""

    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="topics")
    #: In lower case, as people's `avoids` and projects' topics are.
    name = models.CharField(max_length=40)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(fields=["prompt", "name"], name="topic_once_per_prompt"),
            models.CheckConstraint(condition=~models.Q(name=""), name="topic_has_a_name"),
        ]
        indexes = [models.Index(fields=["name", "prompt"], name="topic_by_name")]

    def __str__(self) -> str:
        return self.name


class PromptSet(models.Model):
    """A named, versioned list of prompts and what it may be used for."""

    class Use(models.TextChoices):
        TRAIN = "train", "Train"
        EVALUATION = "evaluation", "Evaluation"
        FRESH = "fresh", "Fresh samples"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    name = models.SlugField()
    version = models.PositiveIntegerField(default=1)
    use = models.CharField(max_length=10, choices=Use.choices)
    prompts = models.ManyToManyField(Prompt, through="PromptSetEntry")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "name", "version"], name="prompt_set_version_once"
            ),
            models.CheckConstraint(
                condition=models.Q(use__in=["train", "evaluation", "fresh"]), name="prompt_set_use"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class PromptSetEntry(models.Model):
    """One prompt's place in one set."""

    prompt_set = models.ForeignKey(PromptSet, on_delete=models.CASCADE, related_name="entries")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT)
    position = models.PositiveIntegerField()

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(fields=["prompt_set", "prompt"], name="prompt_once_per_set"),
            models.UniqueConstraint(
                fields=["prompt_set", "position"], name="position_once_per_set"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prompt_set} [{self.position}]"
