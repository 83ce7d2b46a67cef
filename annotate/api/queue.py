"""The annotator's queue: get one, answer it, and have the next one in the same breath.

Nothing here tells which response is A, who or what wrote it, or what others said.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.projects import FormOut, LabelOut
from annotate.errors import ProjectClosed
from annotate.models import Annotator, Answer, Assignment, Judgment, Project
from annotate.services.judging import (
    MAX_KEY,
    submit_judgment,
    to_screen,
    undo_judgment,
)
from annotate.services.labels import MAX_NAME, offered_labels
from annotate.services.prefetching import lease_ahead, show_assignment
from annotate.services.questions import (
    MAX_RATIONALE,
    MAX_REWRITE,
    SCREEN_ANSWERS,
    SIDES,
    screen_details,
    screen_strength,
)
from annotate.services.rankings import shown_candidates
from annotate.services.serving import (
    IN_HAND,
    MAX_SKIP_NOTE,
    annotator_for,
    next_assignment,
    skip_assignment,
)
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Nothing, Strict
from rlhf_platform.accounts.models import Role


class MessageOut(serializers.Serializer[Any]):
    role = serializers.CharField()
    content = serializers.CharField(allow_blank=True)


class CandidateOut(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text="Its place on the screen, from 1")
    text = serializers.CharField(allow_blank=True)


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
    candidates = serializers.SerializerMethodField(
        help_text="Of a ranking: its responses in the order shown; empty otherwise"
    )
    answers = serializers.SerializerMethodField()
    labels = LabelOut(many=True, source="guideline.labels", default=list)
    form = FormOut(source="guideline.form", default=dict)
    guideline_version = serializers.IntegerField(source="guideline.version", allow_null=True)

    @extend_schema_field(CandidateOut(many=True))
    def get_candidates(self, assignment: Assignment) -> list[dict[str, Any]]:
        return (
            [{"id": shown.place, "text": shown.text} for shown in shown_candidates(assignment)]
            if assignment.order
            else []
        )

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
        if project.kind == Project.Kind.RANKINGS:
            return [Answer.RANKING]
        if project.kind == Project.Kind.LABELS:
            return [label["name"] for label in offered_labels(assignment)]
        left_out = {"tie": not project.allow_tie, "both_bad": not project.allow_both_bad}
        return [answer for answer in SCREEN_ANSWERS if not left_out.get(answer)]


class RatingsIn(Strict):
    left = serializers.DictField(child=serializers.IntegerField(), required=False)
    right = serializers.DictField(child=serializers.IntegerField(), required=False)


class RewriteIn(Strict):
    of = serializers.ChoiceField(
        SIDES, required=False, help_text="Needed where neither answer is better"
    )
    text = serializers.CharField(max_length=MAX_REWRITE, trim_whitespace=False)


class SpanIn(Strict):
    on = serializers.ChoiceField(SIDES)
    start = serializers.IntegerField(min_value=0, help_text="In Unicode code points of the text")
    end = serializers.IntegerField(min_value=1, help_text="The first code point after the span")
    category = serializers.CharField(max_length=MAX_NAME)


class DetailsIn(Strict):
    """Replies to the questions of the assignment's form; by left and right as they were served."""

    aspects = serializers.DictField(child=serializers.ChoiceField([*SIDES, "tie"]), required=False)
    ratings = RatingsIn(required=False)
    reasons = serializers.ListField(child=serializers.CharField(), required=False)
    rewrite = RewriteIn(required=False)
    spans = SpanIn(many=True, required=False)
    known_model = serializers.BooleanField(required=False, help_text="I know which model this is")
    ranking = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(min_value=1)),
        required=False,
        help_text="Candidates' ids, the best first; those that tie share a list. "
        "A candidate may be left out: nothing is said of it",
    )


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
    strength = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="How much better, from 1 to half of the form's steps: negative for left, "
        "positive for right",
    )
    details = DetailsIn(required=False)


class JudgmentOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    assignment = serializers.IntegerField(source="assignment_id")
    answer = serializers.SerializerMethodField()
    rationale = serializers.CharField(allow_blank=True)
    strength = serializers.SerializerMethodField()
    details = serializers.SerializerMethodField()
    active_ms = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_answer(self, judgment: Judgment) -> str:
        return to_screen(judgment)

    def get_strength(self, judgment: Judgment) -> int | None:
        return screen_strength(judgment)

    @extend_schema_field(DetailsIn)
    def get_details(self, judgment: Judgment) -> dict[str, Any]:
        return screen_details(judgment)


class NextOut(serializers.Serializer[Any]):
    next = AssignmentOut(allow_null=True, help_text="null when nothing is left")


class JudgedOut(NextOut):
    judgment = JudgmentOut()


class AheadOut(serializers.Serializer[Any]):
    assignments = AssignmentOut(
        many=True, help_text="In the order to show them; none near the end of the queue"
    )


class SkipIn(Strict):
    reason = serializers.ChoiceField(
        Assignment.SkipReason.choices, required=False, allow_blank=True, default=""
    )
    note = serializers.CharField(max_length=MAX_SKIP_NOTE, allow_blank=True, default="")


class UndoIn(Strict):
    idempotency_key = serializers.CharField(max_length=MAX_KEY)
    assignment = serializers.IntegerField(
        required=False,
        source="expected",
        help_text="Take back only the judgment of this assignment",
    )


class QueueEndpoint(Endpoint):
    role = Role.ANNOTATOR

    def annotator(self) -> Annotator:
        return annotator_for(user=self.person, workspace=self.workspace)

    def mine(self, pk: int) -> Assignment:
        """An assignment of this person; anybody else's is not found."""
        found = IN_HAND.first(user=self.person.pk, workspace=self.workspace.pk, pk=pk)
        if found is None:
            raise NotFound(f"This workspace has no assignment {pk} of yours.")
        return found

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


class Ahead(QueueEndpoint):
    @describe(
        "lease_ahead",
        "Lease what comes after the one on the screen, or renew it: unshown leases live a minute",
        body=Nothing,
        gives=AheadOut,
        problems=[404, 409],
    )
    def post(self, request: Request, slug: str) -> Response:
        self.body(Nothing)
        project = self.find(Project.objects.all(), slug=slug)
        held = lease_ahead(project=project, annotator=self.annotator())
        return Response(AheadOut({"assignments": held}).data)


class Shown(QueueEndpoint):
    @describe(
        "show_assignment",
        "Say that a comparison leased ahead is on the screen: its lease is the whole one from now",
        body=Nothing,
        gives=AssignmentOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        self.body(Nothing)
        found = show_assignment(assignment=self.mine(pk), annotator=self.annotator())
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
        body=SkipIn,
        gives=NextOut,
        problems=[404, 409],
    )
    def post(self, request: Request, pk: int) -> Response:
        assignment, asked = self.mine(pk), self.body(SkipIn)
        annotator = assignment.annotator
        skip_assignment(assignment=assignment, annotator=annotator, **asked)
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
