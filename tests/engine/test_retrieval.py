"""Documents to chunks to an index that is searched, changed in place, and measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from training.engine.__main__ import main
from training.engine.chunking import chunks_of
from training.engine.documents import Document, documents_of_rows, read_documents
from training.engine.embedding import Encoder
from training.engine.errors import ConfigError, DataError, RunFolderError
from training.engine.retrieval import (
    IndexSettings,
    delete_index,
    fused,
    only_writer,
    open_index,
    update_index,
)
from training.engine.retrieval_metrics import ndcg_at, recall_at, reciprocal_rank
from training.engine.terms import terms

SPARSE = IndexSettings(dense=False)
CATS = Document("cats", "A cat sleeps on the warm roof.")
SHIPS = Document("ships", "The ship left the harbour at dawn.")
TAX = Document("tax", "Income tax is due in April.", "Taxes")


def test_a_chunk_is_a_stretch_of_its_document_and_repeats_whole_sentences() -> None:
    text = "One two three. Four five six. Seven eight nine.\n\nTen eleven twelve."
    chunks = chunks_of(Document("d", text), Encoder(), tokens=8, overlap=4)
    assert [chunk.text for chunk in chunks] == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine.\n\nTen eleven twelve.",
    ]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


def test_a_sentence_that_is_too_long_is_cut_and_nothing_is_lost() -> None:
    text = "猫" * 50
    chunks = chunks_of(Document("d", text), Encoder(), tokens=20, overlap=0)
    assert [len(chunk.text) for chunk in chunks] == [20, 20, 10]
    with pytest.raises(ConfigError, match="the overlap has to be smaller"):
        chunks_of(Document("d", text), Encoder(), tokens=8, overlap=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat's roof", ["the", "cat", "s", "roof"]),
        ("黑豹队", ["黑", "豹", "队", "黑豹", "豹队"]),
        ("كِتاب", ["كتا", "تاب", "كتاب"]),  # the vowel sign is gone
    ],
)
def test_terms_follow_the_script(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_an_encoding_is_read_from_its_mark_or_refused_with_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Grüße".encode("utf-16"))
    assert read_documents([tmp_path])[0].text == "Grüße"
    (tmp_path / "b.md").write_bytes("# Größe\nGrüße".encode("cp1252"))
    with pytest.raises(DataError, match=r"b\.md is not UTF-8: byte 4 .*--encoding"):
        read_documents([tmp_path])
    assert read_documents([tmp_path / "b.md"], encoding="cp1252")[0].title == "Größe"
    with pytest.raises(DataError, match="encoding 'klingon' is not known"):
        read_documents([tmp_path], encoding="klingon")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, "row 1 .no id.: id is None"),
        ({"id": "a", "text": " "}, "text is empty"),
        ({"id": "a", "text": 3}, "text must be a text, not int"),
        ({"id": "a", "text": "\ud800"}, "text must be a text"),
    ],
)
def test_a_wrong_row_is_named(row: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        documents_of_rows([row], "documents")


def test_what_cannot_be_indexed_or_searched_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no documents"):
        update_index(tmp_path / "i", [])
    with pytest.raises(DataError, match="1 documents have an id that an earlier one has"):
        update_index(tmp_path / "i", [CATS, CATS], settings=SPARSE)
    assert not (tmp_path / "i").exists()
    with pytest.raises(RunFolderError, match="holds no index"):
        open_index(tmp_path / "i")
    update_index(tmp_path / "i", [CATS, SHIPS], settings=SPARSE)
    index = open_index(tmp_path / "i")
    with pytest.raises(DataError, match="k is 3, and the index has 2 chunks"):
        index.search("cat", 3, "bm25")
    with pytest.raises(DataError, match="holds no vectors"):
        index.search("cat", 1, "hybrid")
    with pytest.raises(DataError, match="'mice' is to be removed"):
        update_index(tmp_path / "i", [], remove=["mice"])
    with pytest.raises(DataError, match="no document would be left"):
        update_index(tmp_path / "i", [], remove=["cats", "ships"])
    (chunks,) = (tmp_path / "i").glob("data-*/chunks.jsonl")
    chunks.write_text("{}\n")
    with pytest.raises(RunFolderError, match="missing or damaged"):
        open_index(tmp_path / "i")


def test_documents_are_added_changed_and_removed_without_encoding_the_others(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "i"
    assert update_index(folder, [CATS, SHIPS]).encoded == 2
    new = Document("ships", "A parrot speaks.")
    changes = update_index(folder, [new, TAX, CATS], remove=[])
    assert (changes.added, changes.changed, changes.unchanged, changes.encoded) == (1, 1, 1, 2)
    changes = update_index(folder, [], remove=["tax"])
    assert (changes.removed, changes.unchanged, changes.encoded) == (1, 2, 0)
    update_index(tmp_path / "fresh", [CATS, new])
    for mode in ("bm25", "dense", "hybrid"):
        old, other = (
            [(hit.chunk.id, pytest.approx(hit.score, abs=1e-6)) for hit in each]
            for each in (
                open_index(name).search("a bird that talks", 2, mode)
                for name in (folder, tmp_path / "fresh")
            )
        )
        assert [hit[0] for hit in old] == [hit[0] for hit in other]
    assert open_index(folder).search("a bird that talks", 1, "dense")[0].chunk.document == "ships"
    assert len(json.loads((folder / "manifest.json").read_text())["documents"]) == 2
    assert len(list(folder.glob("data-*"))) == 1


def test_vectors_are_the_masked_mean_of_unit_length_whatever_stands_beside() -> None:
    encoder = Encoder()
    both = encoder.encode(["A cat.", "The ship left the harbour at dawn, and nobody saw it."])
    assert np.allclose(np.linalg.norm(both, axis=1), 1.0, atol=1e-5)
    ids = torch.tensor([encoder.tokenizer.encode("A cat.").ids])
    with torch.no_grad():
        mean = encoder._model(input_ids=ids).last_hidden_state[0].mean(dim=0)
    assert np.allclose(both[0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_ranks_are_fused_by_their_reciprocals() -> None:
    found = fused([[(7, 9.0), (3, 1.0)], [(3, 0.9)]])
    assert found == [(3, 1 / 62 + 1 / 61), (7, 1 / 61)]


def test_metrics_are_those_worked_by_hand_and_scikit_learns() -> None:
    ranking = ["a", "b", "c", "d"]
    assert recall_at(ranking, {"b", "d"}, 2) == 0.5
    assert reciprocal_rank(ranking, {"c", "d"}) == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, {"z"}) == 0.0
    ideal = 1 + 1 / math.log2(3)
    by_hand = (1 / math.log2(3) + 1 / math.log2(5)) / ideal
    assert ndcg_at(ranking, {"b", "d"}, 4) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(ndcg_score([[0, 1, 0, 1]], [[4, 3, 2, 1]], k=4))


def test_the_command_line_indexes_and_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cats.md").write_text("# Cats\nA cat sleeps on the roof.\n")
    (tmp_path / "docs" / "ships.txt").write_text("The ship left the harbour.\n")
    folder = str(tmp_path / "index")
    assert main(["index", folder, str(tmp_path / "docs"), "--sparse"]) == 0
    assert "2 added, 0 changed, 0 removed" in capsys.readouterr().out
    assert main(["search", folder, "roof", "-k", "1", "--mode", "bm25", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["document"], found["title"]) == (1, "cats.md", "Cats")
    assert main(["index", folder, "--remove", "ships.txt"]) == 0
    assert main(["search", folder, "roof", "-k", "9", "--mode", "bm25"]) == 1
    assert "k is 9, and the index has 1 chunks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "noted"),
    [
        ("猫在温暖的屋顶上睡觉。The roof.", [], True),
        ("تنام القطة على السطح الدافئ.", [], True),
        ("تنام القطة على السطح الدافئ.", ["--sparse"], False),  # there is no other mode
        ("Die Katze schläft auf dem warmen Dach. 猫", [], False),
        ("2026: 3.14", [], False),
    ],
)
def test_a_script_that_the_packaged_encoder_cannot_read_is_told(
    text: str, options: list[str], noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert main(["index", str(tmp_path / "i"), str(tmp_path / "text.txt"), *options]) == 0
    assert ("choose the mode bm25" in capsys.readouterr().err) is noted


def test_an_index_is_deleted_and_what_somebody_else_keeps_there_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "i"
    for kept in (True, False):
        update_index(folder, [CATS], settings=SPARSE)
        if kept:
            (folder / "notes.txt").write_text("mine", encoding="utf-8")
        with only_writer(folder), pytest.raises(RunFolderError, match="by another process"):
            delete_index(folder)
        assert open_index(folder).chunks
        assert main(["index", str(folder), "--delete"]) == 0
        assert [path.name for path in tmp_path.rglob("*")] == (["i", "notes.txt"] if kept else [])
        if kept:
            (folder / "notes.txt").unlink()
    assert main(["index", str(folder), "--delete"]) == 1
    assert "holds no index that can be read" in capsys.readouterr().err
    assert not folder.exists()
    assert main(["index", str(folder), "cats.md", "--delete"]) == 1
    assert "leave out documents" in capsys.readouterr().err


def test_a_title_counts_among_the_tokens_of_a_chunk() -> None:
    text = "One two three. Four five six. Seven eight nine."
    chunks = chunks_of(Document("d", text, "Of numbers"), Encoder(), tokens=10, overlap=0)
    assert [chunk.text for chunk in chunks] == [
        "One two three. Four five six.",
        "Seven eight nine.",
    ]
    long = chunks_of(Document("d", text, "word " * 50), Encoder(), tokens=8, overlap=2)
    assert long[0].title == "word word word word"
    for chunk in (*chunks, *long):
        assert len(Encoder().offsets(chunk.shown)) <= 10


def test_a_second_writer_of_an_index_is_refused_in_one_sentence(tmp_path: Path) -> None:
    update_index(tmp_path / "i", [CATS], settings=SPARSE)
    with only_writer(tmp_path / "i"), pytest.raises(RunFolderError, match="by another process"):
        update_index(tmp_path / "i", [SHIPS])
    assert {chunk.document for chunk in open_index(tmp_path / "i").chunks} == {"cats"}
    update_index(tmp_path / "i", [SHIPS])
    assert {chunk.document for chunk in open_index(tmp_path / "i").chunks} == {"cats", "ships"}
