"""Text sets: documents, labelled texts, questions with answers, conversations."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.api.uploads import UploadEndpoint, UploadIn, stored
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from training.models import TextSet
from training.selectors.text_sets import runs_reading
from training.services.text_sets import import_text_set


class TextSetIn(UploadIn):
    file = serializers.FileField(
        help_text="Rows as .jsonl, .jsonl.gz, .parquet (labelled and documents also .csv, .tsv); a "
        ".txt, .md or .rst file is one document"
    )
    name = serializers.SlugField(max_length=50)
    kind = serializers.ChoiceField(
        TextSet.Kind.choices,
        default=TextSet.Kind.DOCUMENTS,
        help_text="documents: text, title?, id?; labelled: text, label; questions: question and "
        "answers, fields or label, documents?; conversations: messages",
    )
    source = serializers.CharField(  # type: ignore[assignment]
        max_length=300, default="", allow_blank=True, help_text="Where the texts come from"
    )
    licence = serializers.CharField(max_length=100, default="", allow_blank=True)
    test_fraction = serializers.FloatField(
        required=False,
        min_value=0.0,
        max_value=0.9,
        help_text="Share that is never trained on; by default 0.1, labelled 0.2, questions 0.5",
    )


class TextSetOut(serializers.ModelSerializer[TextSet]):
    figures = serializers.DictField(
        help_text="Counted as it came in: writing, languages, characters; labels as [to train on, "
        "held out]; task and without_answer of questions"
    )

    class Meta:
        model = TextSet
        fields = (
            "id", "name", "version", "kind", "n_train", "n_held_out", "size_bytes", "sha256",
            "source", "licence", "figures", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class TextSetDetailOut(TextSetOut):
    runs = serializers.SerializerMethodField(help_text="That read it, newest first, at most 100")

    class Meta(TextSetOut.Meta):
        fields = (*TextSetOut.Meta.fields, "runs")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]

    def get_runs(self, text_set: TextSet) -> list[int]:
        return list(runs_reading(text_set).values_list("pk", flat=True)[:100])


class TextSets(UploadEndpoint):
    class Query(Strict):
        name = serializers.SlugField(required=False)
        kind = serializers.ChoiceField(TextSet.Kind.choices, required=False)

    @describe(
        "list_text_sets", "Every version of every set", gives=TextSetOut(many=True), query=Query
    )
    def get(self, request: Request) -> Response:
        asked = self.filters(self.Query)
        return self.page(sets_of(self).filter(**asked).order_by("-pk"), TextSetOut)

    @describe(
        "import_text_set",
        "Import a set, all of it or nothing; the same texts again are the same version",
        upload=TextSetIn,
        gives=TextSetOut,
        status=201,
    )
    def post(self, request: Request) -> Response:
        asked = self.body(TextSetIn)
        with stored(asked.pop("file")) as path:
            made = import_text_set(workspace=self.workspace, path=path, **asked)
        return Response(TextSetOut(made).data, status=status.HTTP_201_CREATED)


class OneTextSet(Endpoint):
    @describe("get_text_set", "One set with its runs", gives=TextSetDetailOut, problems=[404])
    def get(self, request: Request, pk: int) -> Response:
        return Response(TextSetDetailOut(self.find(sets_of(self), pk=pk)).data)


def sets_of(endpoint: Endpoint) -> QuerySet[TextSet]:
    return TextSet.objects.filter(workspace=endpoint.workspace)
