"""Importing files: what is stored, what is refused, and that twice is once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from annotate.errors import ImportRefused, NotFound
from annotate.models import Answer, Comparison, Judgment, Prompt, Response
from annotate.services.ingest import import_comparisons, import_prompts
from tests.factories import make_project
from tests.people import People

HH = [
    {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.",
     "rejected": "\n\nHuman: Hi?\n\nAssistant: No."},
    {"chosen": "\n\nHuman: A\n\nAssistant: b\n\nHuman: C\n\nAssistant: d",
     "rejected": "\n\nHuman: A\n\nAssistant: b\n\nHuman: C\n\nAssistant:"},
]  # fmt: skip
PANDALM = {"idx": 7, "instruction": "Say hi.", "input": "", "response1": "hi", "response2": "ho",
           "annotator1": 1, "annotator2": 0, "annotator3": 2}  # fmt: skip


def write(path: Path, rows: list[object]) -> Path:
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return path


def test_hh_rows_become_comparisons_with_one_judgment(people: People, tmp_path: Path) -> None:
    project = make_project(people.workspace)
    report = import_comparisons(project=project, path=write(tmp_path / "hh.jsonl", HH))
    assert (report.comparisons_new, report.judgments_new) == (2, 2)
    comparison = Comparison.objects.get(prompt__messages=[{"role": "user", "content": "Hi?"}])
    judgment = comparison.judgments.get()
    chosen = comparison.response_a if judgment.answer == Answer.A else comparison.response_b
    assert chosen.text == "Hello."
    assert comparison.slots == 0
    assert Response.objects.filter(text="").exists()  # an empty answer is legal


def test_three_people_stay_three_judgments(people: People, tmp_path: Path) -> None:
    project = make_project(people.workspace, overlap=5)
    import_comparisons(project=project, path=write(tmp_path / "p.jsonl", [PANDALM]))
    answers = {j.annotator.external_name: j.answer for j in Judgment.objects.all()}
    assert answers["pandalm:annotator2"] == Answer.TIE
    assert {answers["pandalm:annotator1"], answers["pandalm:annotator3"]} == {"a", "b"}
    assert Comparison.objects.get().slots == 2


def test_importing_twice_changes_nothing(people: People, tmp_path: Path) -> None:
    project = make_project(people.workspace)
    path = write(tmp_path / "hh.jsonl", HH)
    import_comparisons(project=project, path=path)
    before = [m.objects.count() for m in (Prompt, Response, Comparison, Judgment)]
    report = import_comparisons(project=project, path=path)
    assert (report.comparisons_new, report.judgments_new) == (0, 0)
    assert [m.objects.count() for m in (Prompt, Response, Comparison, Judgment)] == before


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: a", "identical"),
        ("\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
         "longer"),
        ("\n\nHuman: q\n\nAssistant: a", "\n\nHuman: other\n\nAssistant: b", "differ before"),
        ("\n\nHuman: q", "\n\nHuman: q\n\nAssistant: b", "does not end with an assistant"),
    ],
)  # fmt: skip
def test_hh_traps_are_named(
    chosen: str, rejected: str, reason: str, people: People, tmp_path: Path
) -> None:
    path = write(tmp_path / "hh.jsonl", [HH[0], {"chosen": chosen, "rejected": rejected}])
    with pytest.raises(ImportRefused, match=rf"line 2: .*{reason}"):
        import_comparisons(project=make_project(people.workspace), path=path)
    assert not Comparison.objects.exists()


def test_a_value_that_is_not_text_is_refused(people: People, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{**PANDALM, "response1": False}])
    with pytest.raises(ImportRefused, match="response1 is bool, not text"):
        import_comparisons(project=make_project(people.workspace), path=path)


def test_skip_bad_imports_the_rest_and_lists_what_it_left(people: People, tmp_path: Path) -> None:
    path = write(tmp_path / "hh.jsonl", [HH[0], "{broken", HH[1]])
    report = import_comparisons(project=make_project(people.workspace), path=path, skip_bad=True)
    assert report.comparisons_new == 2
    assert [row.line for row in report.bad_rows] == [2]


def test_line_separators_inside_a_string_do_not_split_a_row(people: People, tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "a\u2028b", "rejected": "c"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    import_comparisons(project=make_project(people.workspace), path=path)
    assert Response.objects.filter(text="a\u2028b").exists()


def test_all_layouts_of_trl_are_read(people: People, tmp_path: Path) -> None:
    ask, yes, no = ({"role": r, "content": c} for r, c in
                    (("user", "q3"), ("assistant", "y"), ("assistant", "n")))  # fmt: skip
    rows = [
        {"prompt": "q1", "chosen": "y", "rejected": "n"},
        {"prompt": [{"role": "user", "content": "q2"}], "chosen": [yes], "rejected": [no]},
        {"chosen": [ask, yes], "rejected": [ask, no]},
    ]
    report = import_comparisons(
        project=make_project(people.workspace), path=write(tmp_path / "t.jsonl", rows)
    )
    assert report.comparisons_new == 3


def test_parquet_is_read_too(people: People, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "t.parquet"
    rows = [{"prompt": "q", "chosen": "y", "rejected": "n"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert (
        import_comparisons(project=make_project(people.workspace), path=path).comparisons_new == 1
    )


def test_files_that_cannot_be_read_say_why(people: People, tmp_path: Path) -> None:
    project = make_project(people.workspace)
    with pytest.raises(NotFound, match="no file"):
        import_comparisons(project=project, path=tmp_path / "missing.jsonl")
    cases = {"empty.jsonl": b"", "binary.jsonl": bytes(range(128, 256)), "x.parquet": b"PAR?"}
    cases["cut.jsonl.gz"] = gzip.compress(b'{"a": 1}\n' * 1000)[:-20]
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImportRefused, match=name):
            import_comparisons(project=project, path=tmp_path / name)


def test_the_same_prompt_list_is_the_same_version(people: People, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": "one"}, {"prompt": "two"}, {"prompt": "one"}])
    asked = {"workspace": people.workspace, "name": "fresh", "use": "fresh"}
    first = import_prompts(path=path, **asked)
    assert first.entries.count() == 2
    assert import_prompts(path=path, **asked) == first
    write(path, [{"instruction": "three", "instances": [{"input": "x"}]}])
    second = import_prompts(path=path, **asked)
    assert second.version == 2
    assert second.prompts.get().messages[0]["content"] == "three\n\nx"
