"""The annotator's queue: get one, answer it, and have the next one in the same breath.

Nothing here tells which response is A, who or what wrote it, or what others said.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.projects import LabelOut
from annotate.errors import ProjectClosed
from annotate.models import Annotator, Assignment, Judgment, Project
from annotate.services.judging import (
    MAX_KEY,
    MAX_RATIONALE,
    SCREEN_ANSWERS,
    submit_judgment,
    to_screen,
    undo_judgment,
)
from annotate.services.labels import MAX_NAME, offered_labels
from annotate.services.serving import annotator_for, next_assignment, skip_assignment
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Nothing, Strict
from rlhf_platform.accounts.models import Role


class MessageOut(serializers.Serializer[Any]):
    role = serializers.CharField()
    content = serializers.CharField(allow_blank=True)


class AssignmentOut(serializers.Serializer[Any]):
    """What the person sees; texts of models are data, never markup to trust."""

    id = serializers.IntegerField()
    project = serializers.CharField(source="comparison.project.slug")
    expires_at = serializers.DateTimeField()
    prompt = MessageOut(many=True, source="comparison.prompt.messages")
    left = serializers.SerializerMethodField(help_text="null in a project of labels")
    right = serializers.SerializerMethodField(help_text="null in a project of labels")
    response = serializers.SerializerMethodField(
        help_text="The answer to be labelled with its prompt; null where there is none"
    )
    answers = serializers.SerializerMethodField()
    labels = LabelOut(many=True, source="guideline.labels", default=list)
    guideline_version = serializers.IntegerField(source="guideline.version", allow_null=True)

    def get_left(self, assignment: Assignment) -> str | None:
        return self.sides(assignment)[0]

    def get_right(self, assignment: Assignment) -> str | None:
        return self.sides(assignment)[1]

    def sides(self, assignment: Assignment) -> tuple[str | None, str | None]:
        if assignment.comparison.response_b is None:
            return None, None
        a, b = assignment.comparison.pair
        return (b.text, a.text) if assignment.swapped else (a.text, b.text)

    def get_response(self, assignment: Assignment) -> str | None:
        item = assignment.comparison
        only = item.response_a if item.response_b is None else None
        return only.text if only is not None else None

    def get_answers(self, assignment: Assignment) -> list[str]:
        """The answers this project takes."""
        project = assignment.comparison.project
        if project.kind == Project.Kind.LABELS:
            return [label["name"] for label in offered_labels(assignment)]
        left_out = {"tie": not project.allow_tie, "both_bad": not project.allow_both_bad}
        return [answer for answer in SCREEN_ANSWERS if not left_out.get(answer)]


class JudgmentIn(Strict):
    answer = serializers.CharField(
        max_length=MAX_NAME,
        help_text="One of the assignment's answers; left and right as they were served",
    )
    idempotency_key = serializers.CharField(
        max_length=MAX_KEY, help_text="Made before the first send; the same again stores nothing"
    )
    active_ms = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, required=False, allow_null=True
    )
    rationale = serializers.CharField(max_length=MAX_RATIONALE, allow_blank=True, default="")


class JudgmentOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    assignment = serializers.IntegerField(source="assignment_id")
    answer = serializers.SerializerMethodField()
    rationale = serializers.CharField(allow_blank=True)
    active_ms = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_answer(self, judgment: Judgment) -> str:
        return to_screen(judgment)


class NextOut(serializers.Serializer[Any]):
    next = AssignmentOut(allow_null=True, help_text="null when nothing is left")


class JudgedOut(NextOut):
    judgment = JudgmentOut()


class UndoIn(Strict):
    idempotency_key = serializers.CharField(max_length=MAX_KEY)


class QueueEndpoint(Endpoint):
    role = Role.ANNOTATOR

    def annotator(self) -> Annotator:
        return annotator_for(user=self.person, workspace=self.workspace)

    def mine(self, pk: int) -> Assignment:
        """An assignment of this person; anybody else's is not found."""
        rows = Assignment.objects.filter(annotator__user=self.person)
        return self.find(
            rows.select_related("annotator", "comparison__project", "guideline"), pk=pk
        )

    def upcoming(self, done: Assignment) -> Assignment | None:
        """What comes next; a project that was closed meanwhile has nothing."""
        try:
            found = next_assignment(project=done.comparison.project, annotator=done.annotator)
        except ProjectClosed:
            return None
        if found is not None and found.guideline_id == done.guideline_id:
            found.guideline = done.guideline
        return found


class Next(QueueEndpoint):
    @describe(
        "serve_next",
        "Lease the next comparison: the one you hold, or another",
        body=Nothing,
        gives=AssignmentOut,
        also={204: None},
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        self.body(Nothing)
        project = self.find(Project.objects.all(), slug=slug)
        found = next_assignment(project=project, annotator=self.annotator())
        if found is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(AssignmentOut(found).data)


class Judging(QueueEndpoint):
    @describe(
        "submit_judgment",
        "Store an answer and lease the next comparison",
        body=JudgmentIn,
        gives=JudgedOut,
        status=201,
        also={200: JudgedOut},
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        assignment, asked = self.mine(pk), self.body(JudgmentIn)
        annotator = assignment.annotator
        judgment = submit_judgment(assignment=assignment, annotator=annotator, **asked)
        upcoming = self.upcoming(assignment)
        answer = JudgedOut({"judgment": judgment, "next": upcoming})
        return Response(answer.data, status=200 if judgment.repeated else 201)


class Skip(QueueEndpoint):
    @describe(
        "skip_assignment",
        "Put a comparison aside for good and lease the next one",
        body=Nothing,
        gives=NextOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        self.body(Nothing)
        assignment = self.mine(pk)
        annotator = assignment.annotator
        skip_assignment(assignment=assignment, annotator=annotator)
        upcoming = self.upcoming(assignment)
        return Response(NextOut({"next": upcoming}).data)


class Undo(QueueEndpoint):
    @describe(
        "undo_judgment",
        "Take your last judgment back, within ten minutes: its comparison is yours again",
        body=UndoIn,
        gives=AssignmentOut,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        project = self.find(Project.objects.all(), slug=slug)
        again = undo_judgment(project=project, annotator=self.annotator(), **self.body(UndoIn))
        return Response(AssignmentOut(again).data)
