"""How far texts are from general ones: numbers by hand, a second way to count, and refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import save_tiny, save_words
from training.engine.__main__ import main
from training.engine.config import BaseConfig
from training.engine.domain import (
    GENERAL,
    Distance,
    TextMeasure,
    decoded,
    measure,
    measure_files,
    read_text,
    share,
    signals,
    spread,
    standard_error,
    text_measure,
    words,
)
from training.engine.errors import BaseModelError, DataError
from training.engine.models import Base, load_base
from training.engine.stretches import STRETCH, stretches

ROOT = Path(__file__).resolve().parents[2]
KNOWN = " ".join(["w1", "w2"] * 300)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Sixteen tokens, all weights zero: every next token has probability 1/16."""
    folder = save_words(tmp_path_factory.mktemp("uniform"), words=12)
    base = load_base(BaseConfig(source=str(folder)))
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.zero_()
    return base


@pytest.fixture(scope="module")
def random_words(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(BaseConfig(source=str(save_words(tmp_path_factory.mktemp("words")))))


def side(**changes: Any) -> TextMeasure:
    values: dict[str, Any] = {
        "characters": 1, "words": 1, "tokens": 10_000, "scored_tokens": 4_000,
        "bits_per_byte": 1.0, "bits_error": 0.01, "perplexity": 20.0, "fertility": 1.0,
        "whole_words": 1.0, "lost_tokens": 0.0,
    }  # fmt: skip
    return TextMeasure(**{**values, **changes})


def test_a_uniform_base_by_hand(uniform: Base) -> None:
    found = text_measure([KNOWN], uniform, "it")
    # two windows of 256 tokens of "w1 ": 255 are scored at 4 bits each, and they are 255 · 3 − 1
    # bytes long, the last without its space
    assert found.scored_tokens == 510
    assert found.bits_per_byte == pytest.approx(255 * 4 / 764, rel=1e-5)
    assert found.perplexity == pytest.approx(16, rel=1e-5)
    assert found.bits_error == pytest.approx(0.0, abs=1e-6)
    assert (found.words, found.tokens, found.fertility) == (600, 600, 1.0)
    assert (found.whole_words, found.lost_tokens) == (1.0, 0.0)


def test_unknown_words_are_lost_tokens_and_make_the_text_far(uniform: Base) -> None:
    found = measure([" ".join(["w1", "zz"] * 300)], uniform, general=[KNOWN])
    assert found.own.lost_tokens == found.own.whole_words == 0.5
    levels = {signal.name: signal.level for signal in found.signals}
    assert levels == {"bits per byte": pytest.approx(0, abs=1e-5), "fertility": 0, "lost tokens": 1}
    assert found.distance == 1.0


def test_general_text_is_at_no_distance_from_itself(random_words: Base) -> None:
    found = measure([KNOWN], random_words, general=[KNOWN])
    assert found.distance == 0.0
    json.dumps(found.as_json(), allow_nan=False)


def test_bits_equal_those_of_the_models_own_logits(random_words: Base) -> None:
    text = " ".join(f"w{(i * i + i // 3) % 12}" for i in range(700))
    found = text_measure([text], random_words, "it")
    ids = random_words.tokenizer(text, add_special_tokens=False)["input_ids"]
    nats = 0.0
    for start in (0, 256):
        window = torch.tensor([ids[start : start + 256]])
        with torch.no_grad():
            logits = random_words.causal(input_ids=window).logits[0, :-1].log_softmax(-1)
        nats -= float(logits.gather(1, window[0, 1:, None]).sum())
    assert found.scored_tokens == 510
    assert math.log(found.perplexity) == pytest.approx(nats / 510, rel=1e-4)


def test_pieces_of_a_character_are_lost(tmp_path: Path) -> None:
    base = load_base(BaseConfig(source=str(save_tiny(tmp_path))))
    chinese = "漢語維基百科條目" * 150
    found = measure([chinese], base)
    assert found.own.words == 8 * 150  # a character is a word
    assert found.own.lost_tokens > 0.5
    assert found.general.lost_tokens == 0.0
    assert found.general.whole_words > 0.9
    assert found.distance == 1.0


def test_signals_by_hand() -> None:
    own = side(bits_per_byte=1.5, fertility=1.85, lost_tokens=0.03)
    levels = [s.level for s in signals(own, side(lost_tokens=0.01))]
    # halfway from 1 to 2; halfway from 1.2 to 2.5; 0.02 of 0.1
    assert levels == [pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.2)]
    assert [s.level for s in signals(side(bits_per_byte=0.4), side())] == [0, 0, 0]
    found = Distance(base="b", own=own, general=side(), signals=signals(own, side()))
    assert found.distance == pytest.approx(0.5)
    assert "domain distance: 0.50 of 1" in found.table()
    assert [share(v, 1, 3) for v in (0, 1, 2, 3, 9)] == [0, 0, 0.5, 1, 1]


def test_words_are_runs_of_letters_and_single_characters_where_nothing_sets_them_apart() -> None:
    assert list(words("don't 漢字 ab3, é")) == ["don", "'", "t", "漢", "字", "ab3", ",", "é"]
    assert list(words("हिन्दी العَرَبِيَّة")) == ["हिन्दी", "العَرَبِيَّة"]
    assert list(words(" \n\t")) == []


def test_a_long_text_is_looked_at_all_over() -> None:
    text = "".join(chr(65 + i % 26) for i in range(10 * STRETCH))
    parts = stretches(text, 3)
    assert [len(part) for part in parts] == [STRETCH] * 3
    assert parts[0] == text[:STRETCH]
    assert parts[-1] == text[-STRETCH:]
    assert stretches("short", 3) == ["short"]
    assert spread([(0, i) for i in range(9)], 3) == [(0, 0), (0, 4), (0, 8)]


def test_the_standard_error_by_hand() -> None:
    # s² of 1, 2, 3 is 1
    assert standard_error([1.0, 2.0, 3.0]) == pytest.approx(1 / math.sqrt(3))
    assert standard_error([1.0]) is None


def test_the_enclosed_text_is_long_enough_to_compare_with() -> None:
    assert sum(1 for _ in words(read_text(GENERAL))) > 1_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("Grüße".encode("latin-1"), r"byte 2 \(line 1\) is 0xfc"),
        (b"fine\nfine\n\xff", r"byte 10 \(line 3\) is 0xff"),
        ("text".encode("utf-16"), "is UTF-16"),
        ("text".encode("utf-16-le"), "zero bytes"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"PK\x03\x04", "compressed"),
        (b"%PDF-1.7", "PDF"),
        (("wrongly read \ufffd" * 9).encode(), "replacement characters"),
    ],
)
def test_what_is_no_text_is_refused_saying_what_to_do(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decoded(data, "it")


def test_a_byte_order_mark_is_no_text() -> None:
    assert decoded(b"\xef\xbb\xbfab", "it") == "ab"


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(DataError, match="no file"):
        measure_files([], "demo")


def test_too_little_text_is_refused(uniform: Base) -> None:
    with pytest.raises(DataError, match="the text has 3 tokens, and 512 are the least"):
        measure(["w1 w2 w3"], uniform)
    with pytest.raises(DataError, match="the general text has 1 tokens"):
        measure([KNOWN], uniform, general=["w1"])


def test_many_scraps_are_refused(uniform: Base) -> None:
    with pytest.raises(DataError, match="256 tokens in a row"):
        measure(["w1 w2"] * 400, uniform)


def test_an_encoder_has_no_probability_of_a_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(KNOWN, encoding="utf-8")
    with pytest.raises(BaseModelError, match="is an encoder"):
        measure_files([text], "minilm")


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(KNOWN, encoding="utf-8")
    with pytest.raises(BaseModelError, match="no such folder"):
        measure_files([text], str(tmp_path / "none"))


def test_reading_texts_needs_no_torch() -> None:
    program = (
        "import sys\nfrom training.engine import domain\n"
        "domain.read_text(domain.GENERAL)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_command_measures_instead_of_believing(tmp_path: Path, capsys: Any) -> None:
    folder = save_words(tmp_path / "base", words="extraordinary consideration",
                        initializer_range=0.0)  # fmt: skip
    case, text = tmp_path / "case.json", tmp_path / "own.txt"
    # this base knows its own two long words, and no word of the enclosed English
    text.write_text("extraordinary consideration " * 300, encoding="utf-8")
    data = {"task": "style", "labelled_examples": 500, "domain_distance": "very_different"}
    case.write_text(json.dumps(data), encoding="utf-8")
    command = ["advise", "--case", str(case), "--base", str(folder), "--text", str(text)]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    measured = said["measured_distance"]
    assert said["case"]["domain_distance"] == measured["distance"]
    assert said["case"]["domain_measured"] is True
    assert measured["own"]["lost_tokens"] == 0.0
    assert measured["general"]["lost_tokens"] > 0.9
    assert any("1.00, and" in note for note in said["notes"])
    assert main([*command, "--general", str(text)]) == 0
    table = capsys.readouterr().out
    assert "domain distance: 0.00 of 1" in table
    assert "0.00 of 1 from general ones (measured)" in table
    assert main(["advise", "--case", str(case), "--text", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
