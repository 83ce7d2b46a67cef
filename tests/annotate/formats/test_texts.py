"""Files of texts: each layout, and a sentence for each row that is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from annotate.errors import ImportRefused
from annotate.formats.texts import read_texts


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return path


def said(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_table_with_quotes_and_line_ends_inside_cells(tmp_path: Path, name: str) -> None:
    table = '\ufefftext,label\r\n"Hi, you",ham\r\n"two\nlines",\r\n\r\n"say ""x""",spam\r\n'
    records, bad = read_texts(written(tmp_path, name, table))
    assert bad == []
    assert [(r.line, r.messages, r.label) for r in records] == [
        (2, said("Hi, you"), "ham"),
        (4, said("two\nlines"), ""),
        (6, said('say "x"'), "spam"),
    ]


def test_tabs_and_the_column_names_of_banking77(tmp_path: Path) -> None:
    records, _ = read_texts(written(tmp_path, "a.tsv", "category\ttext\ncard_arrival\tWhere?\n"))
    assert (records[0].messages, records[0].label) == (said("Where?"), "card_arrival")


def test_json_lines_with_a_prompt_a_response_and_a_number_as_label(tmp_path: Path) -> None:
    lines = '{"prompt": "Q?", "response": "A.", "label": 1}\n{"text": "x", "label": null}\n'
    records, bad = read_texts(written(tmp_path, "a.jsonl", lines))
    assert bad == []
    assert [(r.messages, r.response, r.label) for r in records] == [
        (said("Q?"), "A.", "1"),
        (said("x"), None, ""),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"label": "x"}', "neither text nor prompt is there"),
        ('{"text": "a", "prompt": "b"}', "both text and prompt are there"),
        ('{"text": "  "}', "text is empty"),
        ('{"text": 3}', "text is 3, not text"),
        ('{"text": "a", "label": ["x"]}', "label is ['x'], not text"),
        ('{"text": "a", "label": true}', "label is True, not text"),
        (
            '{"prompt": [{"role": "assistant", "content": "a"}], "response": "b"}',
            "does not end with a user's message",
        ),
        ('{"text": "\\ud800"}', "half a surrogate pair"),
    ],
)
def test_a_row_that_is_no_text_says_why(tmp_path: Path, row: str, words: str) -> None:
    records, bad = read_texts(written(tmp_path, "a.jsonl", row + "\n"))
    assert records == []
    assert (bad[0].line, words in bad[0].reason) == (1, True)


def test_a_row_of_another_length_is_named_by_its_line(tmp_path: Path) -> None:
    _, bad = read_texts(written(tmp_path, "a.csv", "text,label\nfine,ham\na,b,c\n"))
    assert [(row.line, row.reason) for row in bad] == [(3, "it has 3 cells where the header has 2")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("ham\tGo until jurong point\n", "its first line must name each column once"),
        ("text\ttext\nx\ty\n", "its first line must name each column once"),
        ("text\tlabel\n", "holds no rows"),
        ('text\tlabel\n"open\tham\n', "line"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_as_a_whole(
    tmp_path: Path, table: str, words: str
) -> None:
    with pytest.raises(ImportRefused, match=words):
        read_texts(written(tmp_path, "a.tsv", table))
