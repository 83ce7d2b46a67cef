"""A project of labels by the same path as comparisons: import, serve, judge, believe, freeze."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from annotate.errors import AnnotateError, ImportRefused, NothingToFreeze, WrongKind
from annotate.export.writers import export_snapshot
from annotate.models import Annotator, Answer, Comparison, Judgment, Project
from annotate.selectors.label_quality import label_quality
from annotate.selectors.quality import project_agreement
from annotate.services import searching
from annotate.services.aggregation import aggregate_project
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.labels import KEYS, Label, checked_labels, labels_as_text, labels_from_text
from annotate.services.projects import create_project, update_project
from annotate.services.serving import annotator_for, next_assignment, skip_assignment
from annotate.services.texts import import_texts
from tests.annotate.services.leases import overlap_holds
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People
from training.engine.classify_data import labels_of
from training.engine.config import ClassifyConfig

SMS = Path(__file__).parents[2] / "data" / "sms" / "spam.tsv"
LABELS = labels_from_text("ham [1]: a message somebody wrote\nspam [2]: advertising")


def label_project(
    people: People, *, overlap: int = 1, labels: list[Label] | None = None
) -> Project:
    return create_project(
        workspace=people.workspace,
        name="Spam",
        slug="spam",
        kind="labels",
        overlap=overlap,
        labels=labels or LABELS,
    )


def write_rows(folder: Path, *rows: object, name: str = "texts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def say(project: Project, person: Annotator, label: str, key: str = "") -> Judgment:
    assignment = next_assignment(project=project, annotator=person)
    assert assignment is not None
    return submit_judgment(
        assignment=assignment,
        annotator=person,
        answer=label,
        idempotency_key=key or f"{assignment.pk}",
    )


def say_of(project: Project, person: Annotator, said: dict[str, str]) -> None:
    """Give every text its label, in whatever order they are served."""
    while assignment := next_assignment(project=project, annotator=person):
        text = assignment.comparison.prompt.messages[0]["content"]
        submit_judgment(
            assignment=assignment,
            annotator=person,
            answer=said[text],
            idempotency_key=str(assignment.pk),
        )


def test_real_messages_go_from_file_to_rows_that_a_classifier_reads(
    people: People, tmp_path: Path
) -> None:
    project = label_project(people)
    report = import_texts(project=project, path=SMS)
    assert (report.texts_new, report.texts_seen, report.known_labels) == (40, 0, 40)
    assert import_texts(project=project, path=SMS).texts_seen == 40
    known = {
        item.prompt.messages[0]["content"]: item.known_label
        for item in Comparison.objects.select_related("prompt")
    }
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    say_of(project, bob, known)
    snapshot = freeze_snapshot(project=project, test_fraction=0.3)
    assert snapshot.n_train + snapshot.n_test == 40
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format="jsonl")
    rows = [json.loads(line) for line in (folder / "data/train.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"ham", "spam"}
    assert all(row["label"] == known[row["text"]] for row in rows)
    assert {row["weight"] for row in rows} == {1.0}
    assert set(rows[0]) == {"id", "text", "label", "weight", "n_judgments"}
    held_out = [json.loads(line) for line in (folder / "data/test.jsonl").read_text().splitlines()]
    assert labels_of(rows, held_out, ClassifyConfig()) == ["ham", "spam"]


def test_datasets_loads_both_layouts(people: People, tmp_path: Path) -> None:
    import datasets

    project = label_project(people)
    rows = [{"prompt": f"Q{n}?", "response": f"A{n}.", "label": "ham"} for n in range(12)]
    import_texts(project=project, path=write_rows(tmp_path, *rows))
    bob = make_annotator(people.workspace, people.bob)
    for number in range(12):
        say(project, bob, "spam" if number % 2 else "ham")
    snapshot = freeze_snapshot(project=project, test_fraction=0.4)
    for format in ("parquet", "jsonl"):
        folder = export_snapshot(snapshot=snapshot, folder=tmp_path / format, format=format)
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].num_rows == snapshot.n_train
        assert "text" not in loaded["train"].column_names
        first = loaded["train"][0]
        assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]


def test_a_label_of_another_list_is_not_stored(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    import_texts(project=project, path=write_rows(tmp_path, {"text": "Win!"}))
    bob = make_annotator(people.workspace, people.bob)
    for answer in ("left", "tie", "withdrawn", "Spam", ""):
        with pytest.raises(AnnotateError, match="none of this project's labels: ham, spam"):
            say(project, bob, answer)
    assert not Judgment.objects.exists()
    judgment = say(project, bob, "spam")
    assert (judgment.answer, judgment.label) == (Answer.LABEL, "spam")
    assert judgment.guideline is not None
    assert judgment.guideline.version == 1


def test_undo_and_skip_are_those_of_comparisons(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    import_texts(project=project, path=write_rows(tmp_path, {"text": "one"}, {"text": "two"}))
    bob = make_annotator(people.workspace, people.bob)
    first = say(project, bob, "spam")
    again = undo_judgment(project=project, annotator=bob, idempotency_key="undo")
    assert again.comparison_id == first.comparison_id
    withdrawal = Judgment.objects.get(supersedes=first)
    assert (withdrawal.answer, withdrawal.label) == (Answer.WITHDRAWN, "")
    skip_assignment(assignment=again, annotator=bob)
    other = next_assignment(project=project, annotator=bob)
    assert other is not None
    assert other.comparison_id != first.comparison_id
    assert all(overlap_holds(item) for item in Comparison.objects.all())


def test_a_label_costs_the_statements_of_a_comparison(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "REMEMBER_EVERY", 2**62)  # a place is remembered now and then
    bob = make_annotator(people.workspace, people.bob)
    compared = make_project(people.workspace)
    for number in range(2):
        make_comparison(compared, prompt=f"{number}?")
    labelled = label_project(people)
    import_texts(project=labelled, path=write_rows(tmp_path, {"text": "one"}, {"text": "two"}))
    counted = []
    for project, answer in ((compared, "left"), (labelled, "spam")):
        with CaptureQueriesContext(connection) as queries:
            say(project, bob, answer)
        counted.append(len(queries))
    assert counted[1] == counted[0] <= 13


def test_what_people_said_becomes_a_label_and_how_sure_it_is(
    people: People, tmp_path: Path
) -> None:
    project = label_project(people, overlap=3)
    rows = [{"text": "Win!", "label": "spam"}, {"text": "Hi.", "label": "ham"}, {"text": "Hm."}]
    import_texts(project=project, path=write_rows(tmp_path, *rows))
    crowd = [make_annotator(people.workspace, name=name) for name in ("ann", "ben", "cat")]
    say_of(project, crowd[0], {"Win!": "spam", "Hi.": "ham", "Hm.": "ham"})
    say_of(project, crowd[1], {"Win!": "spam", "Hi.": "ham", "Hm.": "spam"})
    say_of(project, crowd[2], {"Win!": "ham", "Hi.": "ham", "Hm.": "ham"})
    beliefs = {
        p.comparison.prompt.messages[0]["content"]: p
        for p in aggregate_project(project=project).preferences.select_related("comparison__prompt")
    }
    assert {text: (p.label, round(p.probability, 3)) for text, p in beliefs.items()} == {
        "Win!": ("spam", 0.667),
        "Hi.": ("ham", 1.0),
        "Hm.": ("ham", 0.667),
    }
    assert beliefs["Win!"].label_counts == {"ham": 1, "spam": 2}
    # 9 values, 6 ham and 3 spam. Ordered pairs that disagree over m - 1 = 2: (4 + 0 + 4) / 2 = 4;
    # expected by chance: (81 - 36 - 9) / 8 = 4.5; alpha = 1 - 4 / 4.5 = 1/9.
    assert project_agreement(project=project).alpha == pytest.approx(1 / 9)
    found = label_quality(project=project)
    assert (found.known.right, found.known.n) == (5, 6)
    ham, spam = found.labels
    # spam was given on Win! by two of three (each: 1 of 2 others) and on Hm. by one (0 of 2).
    assert (spam.judgments, spam.texts, spam.together) == (3, 1, pytest.approx(2 / 6))
    # ham on Win! once (0 of 2), on Hi. thrice (2 of 2), on Hm. twice (1 of 2).
    assert (ham.judgments, ham.texts, ham.together) == (6, 2, pytest.approx(8 / 12))
    assert [(p.annotator, p.known.right, p.agreement) for p in found.people] == [
        ("ann", 2, pytest.approx(4 / 6)),
        ("ben", 2, pytest.approx(3 / 6)),
        ("cat", 1, pytest.approx(3 / 6)),
    ]


def test_two_labels_that_lead_are_a_tie_and_no_row(people: People, tmp_path: Path) -> None:
    project = label_project(people, overlap=2)
    rows = [{"text": f"text {n}"} for n in range(9)]
    import_texts(project=project, path=write_rows(tmp_path, *rows))
    said = {f"text {n}": "ham" if n % 2 else "spam" for n in range(9)}
    say_of(project, make_annotator(people.workspace, name="ann"), said)
    said["text 0"] = "ham"
    say_of(project, make_annotator(people.workspace, name="ben"), said)
    snapshot = freeze_snapshot(project=project, test_fraction=0.3)
    left_out = snapshot.summary["left_out"]
    assert left_out["tie"] == 1
    assert snapshot.n_train + snapshot.n_test + sum(left_out.values()) == 9


def test_one_label_alone_cannot_be_frozen(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    rows = [{"text": f"text {n}"} for n in range(9)]
    import_texts(project=project, path=write_rows(tmp_path, *rows))
    bob = make_annotator(people.workspace, people.bob)
    for _ in range(9):
        say(project, bob, "ham")
    with pytest.raises(NothingToFreeze, match="nothing to tell apart"):
        freeze_snapshot(project=project, test_fraction=0.3)


def test_a_changed_list_is_a_version_and_what_it_strikes_off_no_longer_counts(
    people: People, tmp_path: Path
) -> None:
    project = label_project(people)
    import_texts(project=project, path=write_rows(tmp_path, {"text": "one"}, {"text": "two"}))
    bob = make_annotator(people.workspace, people.bob)
    held = next_assignment(project=project, annotator=bob)
    update_project(project=project, labels=labels_from_text("ham\nadvertising"))
    update_project(project=project, labels=labels_from_text("ham\nadvertising"))
    assert list(project.guidelines.values_list("version", flat=True)) == [1, 2]
    # The list that was on the screen still holds for this lease.
    assert held is not None
    assert say(project, bob, "spam").guideline_id == held.guideline_id
    assert say(project, bob, "advertising").label == "advertising"
    aggregation = aggregate_project(project=project)
    assert (aggregation.summary["label"], aggregation.summary["struck_off"]) == (1, 1)


def test_other_guidelines_keep_the_labels(people: People) -> None:
    project = label_project(people)
    update_project(project=project, guidelines="Think.")
    newest = project.guidelines.latest("version")
    assert (newest.version, [label["name"] for label in newest.labels]) == (2, ["ham", "spam"])


def test_each_kind_refuses_what_belongs_to_the_other(people: People, tmp_path: Path) -> None:
    labelled, compared = label_project(people), make_project(people.workspace)
    pair = write_rows(tmp_path, {"prompt": "Q?", "chosen": "a", "rejected": "b"})
    with pytest.raises(WrongKind, match="holds single texts only"):
        import_comparisons(project=labelled, path=pair)
    with pytest.raises(WrongKind, match="holds two responses only"):
        import_texts(project=compared, path=write_rows(tmp_path, {"text": "x"}))
    with pytest.raises(WrongKind, match="has no labels"):
        update_project(project=compared, labels=LABELS)
    with pytest.raises(AnnotateError, match="needs 2 to 200 labels; 0 given"):
        create_project(workspace=people.workspace, name="x", slug="x", kind="labels")
    assert not Comparison.objects.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ham\nham", "two labels have the name 'ham'"),
        ("ham [1]\nspam [1]", "two labels have the key '1'"),
        ("ham [u]\nspam", "its key is 'u'"),
        ("ham [12]\nspam", "its key is '12'"),
        (f"{'x' * 65}\nspam", "has 65 characters"),
        ("ham\nspam [2", "labels, line 2"),
        (": only a definition\nspam", "labels, line 1"),
    ],
)
def test_a_list_that_cannot_be_shown_is_refused(text: str, words: str) -> None:
    with pytest.raises(AnnotateError) as refused:
        checked_labels(kind="labels", labels=labels_from_text(text))
    assert words in str(refused.value)


def test_labels_without_a_key_get_the_next_free_one() -> None:
    listed = checked_labels(kind="labels", labels=labels_from_text("\n".join(["a [2]", "b", "c"])))
    assert [label["key"] for label in listed] == ["2", "1", "3"]
    many = labels_from_text("\n".join(f"label {n}" for n in range(77)))
    keys = [label["key"] for label in checked_labels(kind="labels", labels=many)]
    assert keys == [*KEYS, *[""] * (77 - len(KEYS))]
    assert labels_from_text(labels_as_text(listed)) == listed


def test_a_file_is_stored_as_a_whole_or_not_at_all(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    path = write_rows(
        tmp_path,
        {"text": "one", "label": "ham"},
        {"text": "two", "label": "egg"},
        {"text": " "},
        {"label": "ham"},
        {"text": "x", "prompt": "y"},
    )
    with pytest.raises(ImportRefused) as refused:
        import_texts(project=project, path=path)
    assert [row.line for row in refused.value.bad_rows] == [2, 3, 4, 5]
    assert "line 2: label 'egg' is none of the project's (ham, spam)" in str(refused.value)
    assert not Comparison.objects.exists()
    report = import_texts(project=project, path=path, skip_bad=True)
    assert (report.texts_new, len(report.bad_rows)) == (1, 4)


def test_another_known_label_for_a_text_is_reported(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    rows = [{"text": "one", "label": "ham"}, {"text": "one", "label": "spam"}]
    report = import_texts(project=project, path=write_rows(tmp_path, *rows))
    assert [row.line for row in report.contradictions] == [2]
    again = import_texts(project=project, path=write_rows(tmp_path, rows[1]))
    assert "in an earlier import" in again.contradictions[0].reason
    assert Comparison.objects.get().known_label == "ham"


def test_the_database_holds_a_label_to_its_answer(people: People, tmp_path: Path) -> None:
    project = label_project(people)
    import_texts(project=project, path=write_rows(tmp_path, {"text": "one"}))
    item, bob = Comparison.objects.get(), make_annotator(people.workspace, people.bob)
    for wrong in ({"answer": "label"}, {"answer": "a", "label": "ham"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Judgment.objects.create(
                workspace=people.workspace,
                comparison=item,
                annotator=bob,
                idempotency_key="k",
                body_digest="d",
                **wrong,
            )
