from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from annotate.errors import ImportRefused, NotFound
from annotate.models import (
    Annotator,
    Comparison,
    Judgment,
    Project,
    Prompt,
    Response,
    ResponseOrigin,
)
from annotate.services.ingest import import_comparisons
from tests.data import HH, PANDALM, rows, write_rows
from tests.factories import make_comparison, make_project, sha256
from tests.people import People, make_people

SOUND = rows(PANDALM)[:5]


@pytest.fixture
def project(people: People) -> Project:
    return make_project(people.workspace)


def stored() -> dict[str, int]:
    models = (Prompt, Response, ResponseOrigin, Comparison, Annotator, Judgment)
    return {model.__name__: model.objects.count() for model in models}


def pair(number: int, chosen: str = "good", rejected: str = "bad") -> dict[str, str]:
    return {"prompt": f"Question {number}?", "chosen": chosen, "rejected": rejected}


def test_real_hh_rows_become_comparisons_judged_by_the_crowd(project: Project) -> None:
    report = import_comparisons(project=project, path=HH)
    assert (report.comparisons_new, report.judgments_new) == (8, 8)
    assert list(Annotator.objects.values_list("kind", "external_name")) == [
        ("imported", "hh-rlhf:crowd")
    ]
    comparison = Comparison.objects.get(prompt__messages__0__content__startswith="Do you know why")
    assert comparison.origin == "import"
    judgment = comparison.judgments.get()
    preferred = comparison.response_a if judgment.answer == "a" else comparison.response_b
    assert preferred.text.startswith("To be honest, I don’t know")
    assert (judgment.swapped, judgment.active_ms, judgment.guideline) == (None, None, None)


def test_the_three_people_of_pandalm_stay_apart(project: Project, tmp_path: Path) -> None:
    report = import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", SOUND))
    assert (report.comparisons_new, report.judgments_new) == (5, 15)
    divided = Comparison.objects.get(prompt__messages__0__content__startswith="What sound")
    said = {
        judgment.annotator.external_name: judgment.answer for judgment in divided.judgments.all()
    }
    first = "a" if divided.response_a.text.startswith("The sound made by") else "b"
    assert said == {
        "pandalm:annotator1": first,
        "pandalm:annotator2": "tie",
        "pandalm:annotator3": first,
    }
    origins = ResponseOrigin.objects.filter(response=divided.response_a, kind="import")
    assert origins.get().reference.startswith("pandalm:")


def test_which_response_is_a_does_not_tell_which_was_chosen(
    project: Project, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [pair(n, f"good {n}", f"bad {n}") for n in range(200)])
    import_comparisons(project=project, path=file)
    answers = Counter(Judgment.objects.values_list("answer", flat=True))
    assert 70 < answers["a"] < 130
    for comparison in Comparison.objects.select_related("response_a", "response_b"):
        assert comparison.response_a.digest < comparison.response_b.digest


def test_digests_are_those_of_the_rest_of_the_platform(project: Project, tmp_path: Path) -> None:
    import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", [pair(1)]))
    imported = Comparison.objects.get()
    other = make_project(project.workspace, slug="other")
    made = make_comparison(other, "Question 1?", a="good", b="bad")
    assert (imported.digest, imported.prompt_id) == (made.digest, made.prompt_id)
    assert {imported.response_a_id, imported.response_b_id} == {
        made.response_a_id,
        made.response_b_id,
    }


def test_importing_twice_changes_nothing(project: Project, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", SOUND)
    import_comparisons(project=project, path=file)
    before = stored(), list(Comparison.objects.order_by("pk").values())
    report = import_comparisons(project=project, path=file)
    assert (report.comparisons_new, report.judgments_new) == (0, 0)
    assert (report.comparisons_seen, report.judgments_seen) == (5, 15)
    assert (stored(), list(Comparison.objects.order_by("pk").values())) == before


def test_the_same_pair_twice_in_a_file_counts_once_in_either_order(
    project: Project, tmp_path: Path
) -> None:
    row = SOUND[0]
    turned = row | {
        "response1": row["response2"],
        "response2": row["response1"],
        "annotator1": 1,
        "annotator2": 1,
        "annotator3": 1,
    }
    report = import_comparisons(
        project=project, path=write_rows(tmp_path / "f.jsonl", [row, row, turned])
    )
    assert (report.comparisons_new, report.judgments_new) == (1, 3)
    assert report.contradictions == []


def test_who_contradicts_themselves_keeps_the_first_answer_and_is_listed(
    project: Project, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [pair(1), pair(1, "bad", "good")])
    report = import_comparisons(project=project, path=file)
    assert [str(row) for row in report.contradictions] == [
        "line 2: import:chosen answers this pair otherwise than in line 1"
    ]
    judgment = Judgment.objects.select_related("comparison__response_a").get()
    assert (judgment.answer == "a") == (judgment.comparison.response_a.text == "good")


def test_a_later_import_that_contradicts_an_earlier_one_is_listed(
    project: Project, tmp_path: Path
) -> None:
    import_comparisons(project=project, path=write_rows(tmp_path / "1.jsonl", [pair(1)]))
    turned = write_rows(tmp_path / "2.jsonl", [pair(1, "bad", "good")])
    report = import_comparisons(project=project, path=turned)
    assert (report.judgments_new, report.judgments_seen) == (0, 0)
    assert "answered this pair otherwise in an earlier import" in str(report.contradictions[0])
    assert Judgment.objects.count() == 1


def test_a_file_with_a_bad_row_is_refused_as_a_whole(project: Project) -> None:
    with pytest.raises(ImportRefused) as refused:
        import_comparisons(project=project, path=PANDALM)
    assert "1 of 6 rows cannot be used, so nothing was imported; --skip-bad" in str(refused.value)
    assert "line 6: response1 is True, not text" in str(refused.value)
    assert [row.line for row in refused.value.bad_rows] == [6]
    assert set(stored().values()) == {0}


def test_many_bad_rows_are_counted_and_the_first_are_named(
    project: Project, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [pair(1), *["{"] * 40])
    with pytest.raises(ImportRefused, match="40 of 41 rows") as refused:
        import_comparisons(project=project, path=file)
    assert "line 21:" in str(refused.value)
    assert "line 22:" not in str(refused.value)
    assert "and 20 more" in str(refused.value)
    assert len(refused.value.bad_rows) == 40


def test_skip_bad_imports_the_rest_and_lists_what_it_left(project: Project) -> None:
    report = import_comparisons(project=project, path=PANDALM, skip_bad=True)
    assert report.comparisons_new == 5
    assert [str(row) for row in report.bad_rows] == ["line 6: response1 is True, not text"]


def test_a_file_without_one_sound_row_is_refused_even_with_skip_bad(
    project: Project, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [rows(PANDALM)[5]])
    with pytest.raises(
        ImportRefused, match="1 of 1 rows cannot be used, so nothing was imported\n  line 1"
    ):
        import_comparisons(project=project, path=file, skip_bad=True)


@pytest.mark.parametrize(
    ("text", "reason"), [("\\ud83d", "half a surrogate pair"), ("\\u0000", "NUL character")]
)
def test_text_that_cannot_be_stored_is_refused_with_its_line(
    project: Project, tmp_path: Path, text: str, reason: str
) -> None:
    line = '{"prompt": "Hi", "chosen": "a", "rejected": "TEXT"}'.replace("TEXT", text)
    with pytest.raises(ImportRefused, match=f"line 1: rejected holds .*{reason}"):
        import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", [line]))


def test_text_of_all_kinds_comes_back_unchanged(project: Project, tmp_path: Path) -> None:
    text = " \u2028 naïve 好 \U0001f600 e\u0301 \t\r\n\x0b\x85 "
    file = write_rows(tmp_path / "f.jsonl", [json.dumps(pair(1, text, ""))])
    import_comparisons(project=project, path=file)
    assert set(Response.objects.values_list("text", flat=True)) == {text, ""}


def test_parquet_is_imported_like_json_lines(project: Project, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pylist([pair(n) for n in range(3)]), path)
    lines = write_rows(tmp_path / "f.jsonl", [pair(n) for n in range(3)])
    assert import_comparisons(project=project, path=path).comparisons_new == 3
    assert import_comparisons(project=project, path=lines).comparisons_seen == 3


def test_judgments_fill_the_places_of_a_comparison(people: People, tmp_path: Path) -> None:
    slots = {}
    for overlap in (1, 3, 5):
        project = make_project(people.workspace, slug=f"of-{overlap}", overlap=overlap)
        import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", SOUND[:1]))
        slots[overlap] = Comparison.objects.get(project=project).slots
    assert slots == {1: 0, 3: 0, 5: 2}


def test_judgments_for_a_comparison_that_is_open_already_take_its_places(
    people: People, tmp_path: Path
) -> None:
    project = make_project(people.workspace, overlap=3)
    comparison = make_comparison(project, "Question 1?", a="good", b="bad")
    report = import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", [pair(1)]))
    assert (report.comparisons_seen, report.judgments_new) == (1, 1)
    comparison.refresh_from_db()
    assert comparison.slots == 2


def test_each_project_judges_for_itself(people: People, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", SOUND)
    for slug in ("one", "two"):
        project = make_project(people.workspace, slug=slug)
        assert import_comparisons(project=project, path=file).judgments_new == 15
    assert (Prompt.objects.count(), Annotator.objects.count()) == (4, 3)


def test_workspaces_share_nothing(people: People, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", SOUND)
    for workspace in (people.workspace, people.elsewhere):
        import_comparisons(project=make_project(workspace), path=file)
    for model in (Prompt, Response, Comparison, Annotator, Judgment):
        counts = Counter(model.objects.values_list("workspace", flat=True))
        assert counts[people.workspace.pk] == counts[people.elsewhere.pk] > 0


def test_the_number_of_queries_hardly_grows_with_the_rows(people: People, tmp_path: Path) -> None:
    def queries(n: int) -> int:
        project = make_project(people.workspace, slug=f"of-{n}")
        file = write_rows(
            tmp_path / f"{n}.jsonl", [pair(k, f"g{n}.{k}", f"b{n}.{k}") for k in range(n)]
        )
        with CaptureQueriesContext(
            connection,
        ) as captured:
            import_comparisons(project=project, path=file)
        return len(captured)

    few, many = queries(10), queries(2_000)
    # SQLite takes 999 parameters a statement, so 2,000 rows are some 75 inserts there.
    assert many - few < 150


def test_a_missing_file_is_not_found(project: Project, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        import_comparisons(project=project, path=tmp_path / "none.jsonl")


def test_the_idempotency_key_comes_from_the_content(project: Project, tmp_path: Path) -> None:
    import_comparisons(project=project, path=write_rows(tmp_path / "f.jsonl", [pair(1)]))
    judgment = Judgment.objects.select_related("comparison").get()
    assert judgment.idempotency_key == f"import:{project.pk}:{judgment.comparison.digest}"
    assert judgment.body_digest == sha256(judgment.answer)


@pytest.mark.django_db(transaction=True)
def test_two_imports_of_one_file_at_one_time_store_it_once(tmp_path: Path) -> None:
    people = make_people()
    projects = [make_project(people.workspace, slug=slug) for slug in ("one", "one-too")]
    file = write_rows(tmp_path / "f.jsonl", [pair(n) for n in range(300)])
    start = threading.Barrier(4)
    reports: list[Any] = []

    def work(project: Project) -> None:
        try:
            start.wait()
            reports.append((project.pk, import_comparisons(project=project, path=file)))
        except Exception as error:
            reports.append((project.pk, error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(project,)) for project in projects * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report for _, report in reports if isinstance(report, Exception)] == []
    for project in projects:
        mine = [report for pk, report in reports if pk == project.pk]
        assert sorted(report.comparisons_new for report in mine) == [0, 300]
        assert sorted(report.judgments_new for report in mine) == [0, 300]
    assert (Prompt.objects.count(), Response.objects.count()) == (300, 600)
    assert (Comparison.objects.count(), Judgment.objects.count()) == (600, 600)
