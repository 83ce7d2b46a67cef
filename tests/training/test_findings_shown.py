"""What each method found, on the page of its run."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.people import People
from tests.training import findings
from training.models import Run
from training.selectors.classification import LARGEST_MATRIX
from training.services.text_rows import Document
from training.services.text_sets import store_text_set

pytestmark = pytest.mark.django_db
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page_of(people: People, client: Client) -> Any:
    client.force_login(people.rita)

    def read(run: Run) -> str:
        reply = client.get(f"/runs/{run.pk}/")
        assert reply.status_code == 200
        return reply.content.decode()

    return read


def test_a_classifier_shows_its_matrix_and_calibration(people: People, page_of: Any) -> None:
    labels = ["ham", HOSTILE, "news"]
    page = page_of(findings.classifier(people.workspace, labels, [[9, 1, 0], [4, 4, 0], [0, 0, 2]]))
    assert HOSTILE not in page
    assert 'ham</span></th><td class="n s5 right">9</td><td class="n s1">1' in page
    for words in ("0.650 to 0.850", "Always saying “ham”", "80 % to 90 %", "Calibration error"):
        assert words in page, words


def test_many_labels_show_mistakes_instead_of_a_matrix(people: People, page_of: Any) -> None:
    k = LARGEST_MATRIX + 1
    matrix = [[1 if column in (0, line) else 0 for column in range(k)] for line in range(k)]
    page = page_of(findings.classifier(people.workspace, [f"l{n}" for n in range(k)], matrix))
    assert "Confusion matrix" not in page
    assert "Taken for another" in page


def test_pretraining_says_what_was_learnt_and_forgotten(people: People, page_of: Any) -> None:
    page = page_of(findings.pretrained(people.workspace))
    for words in (
        "16.3 to 20.3", "<strong>-24.6</strong> %", "it is foreseen better than before",
        "something was forgotten",
    ):  # fmt: skip
        assert words in page, words


def test_answers_stand_beside_what_is_right_and_their_sources(people: People, page_of: Any) -> None:
    workspace = people.workspace
    texts = [Document("The law", f"Before. {HOSTILE} is the law.", {"id": "d1"})]
    documents = store_text_set(workspace=workspace, documents=texts, name="law")
    asked = [
        Document(
            "", f"What is law {n}?", {"id": f"q{n}", "answers": ["a law"], "documents": ["d1"]}
        )
        for n in range(2)
    ]
    questions = store_text_set(workspace=workspace, documents=asked, name="quiz", kind="questions")
    rows = [
        {
            "id": "q0", "answer": f"It is {HOSTILE} [1], [7]", "scores": {"exact": 0.0, "f1": 0.25},
            "passages": [{"n": 1, "document": "d1", "start": 8, "end": 51}],
            "citations": [{"n": 1, "document": "d1", "start": 8, "end": 51},
                          {"n": 7, "document": None, "start": None, "end": None}],
        },
        {"id": "q1", "answer": "", "scores": {"exact": 0.0, "f1": 0.0}, "passages": [],
         "citations": []},
    ]  # fmt: skip
    run = findings.answering(workspace, questions, documents, rows)
    page = page_of(run)
    assert HOSTILE not in page
    for words in (
        "What is law 0?", "&lt;img src=x onerror=alert(1)&gt; is the law", "The law", "cited",
        "✓ holds the answer", "[7]", "◐ 0.250", "✕ not right", "a law", "(empty response)",
    ):  # fmt: skip
        assert words in page, words
    assert "Before." not in page
    # Without its folder the figures are still there.
    Run.objects.filter(pk=run.pk).update(folder="runs/gone")
    assert "How well it answers" in page_of(run)


def test_a_comparison_is_one_table(people: People, page_of: Any) -> None:
    page = page_of(findings.comparison(people.workspace, pretrain_sft=f"no room {HOSTILE}"))
    assert HOSTILE not in page
    for words in (
        "24 questions, 48 examples; compared by F1", "2 questions stand", "better", "worse",
        "30.9 → 33.0", "<strong>7.0</strong> %", "✕ failed", "no room", "rag-answer",
        "1 min 44 s",
    ):  # fmt: skip
        assert words in page, words
