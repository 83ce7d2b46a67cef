"""Rows of a classifier: which are refused, cut or counted, and what the planner makes of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    ElectraConfig,
    ElectraForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.engine.labelled import CUES, ROW, TEST, TRAIN, WORDS, asked, texts, trained
from tests.engine.test_resume import curve
from tests.engine.tiny import events, make_run, result, save_encoder, user
from training.engine.__main__ import main
from training.engine.classify_data import (
    text_tokens,
)
from training.engine.config import BaseConfig, from_dict
from training.engine.errors import ConfigError
from training.engine.planner import Lengths, plan, work_of
from training.engine.planner_calibrate import lengths_of
from training.engine.planner_memory import Layout, mask_bytes
from training.engine.planner_shapes import read_shape
from training.engine.token_inspection import load_texts, preflight

# Rows and refusals ------------------------------------------------------------------------------


def refused(folder: Path, config: dict[str, Any], **files: Any) -> str:
    make_run(folder, config, **({"train": TRAIN, "test": TEST} | files))
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused", found["reason"]
    return str(found["reason"])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"test": [*TEST, {**ROW, "label": "music"}]}, "test row 31 (odd)): they could never"),
        ({"train": texts(8, 1, ("law",)), "test": []}, "all 8 training rows have the label 'law'"),
        ({"train": [*TRAIN, {**ROW, "text": " \n"}]}, "train row 97 (odd): text is empty"),
        ({"train": [*TRAIN, {**ROW, "label": None}]}, "label is None; it must be a text"),
        ({"train": [*TRAIN, {**ROW, "weight": 0}]}, "train row 97 (odd): weight is 0.0, not a num"),
        ({"train": [*TRAIN, {**ROW, "weight": "x"}]}, "train row 97 (odd): weight is 'x', not a"),
        ({"train": [*TRAIN, {**ROW, "messages": user("and")}]}, "give text or messages, one of"),
        ({"train": [*TRAIN, {"id": "odd", "label": "food"}]}, "give text or messages, one of"),
    ],
)
def test_rows_that_cannot_be_learnt_are_named(
    files: dict[str, Any], words: str, llama: Path, tmp_path: Path
) -> None:
    assert words in refused(tmp_path / "run", asked(llama), **files)


def test_a_label_that_was_not_named_is_refused_and_the_order_is_kept(
    llama: Path, tmp_path: Path
) -> None:
    config = asked(llama, classify={"labels": ["sport", "food"]}, optim={"max_steps": 1})
    said = refused(tmp_path / "run", config)
    assert "train row 3 (1-2): label 'law' is none of classify.labels (sport, food)" in said
    config["classify"] = {"labels": ["sport", "music", "food", "law"]}
    run = trained(tmp_path / "good", config)
    assert result(run)["classification"]["labels"] == ["sport", "music", "food", "law"]
    warned = {e["code"]: e["message"] for e in events(run) if e["kind"] == "warning"}
    assert "no training row is of music" in warned["classes_without_rows"]


def test_whole_numbers_are_labels_in_their_order(llama: Path, tmp_path: Path) -> None:
    numbered = [row | {"label": 9 + number % 3} for number, row in enumerate(TRAIN)]
    run = trained(tmp_path / "run", asked(llama, optim={"max_steps": 1}), train=numbered, test=[])
    named = AutoConfig.from_pretrained(run / "adapter")
    assert named.id2label == {0: "9", 1: "10", 2: "11"}
    assert "classification" not in result(run)


def test_a_classifier_gets_a_new_head_for_other_labels(bert: Path, tmp_path: Path) -> None:
    first = trained(tmp_path / "first", asked(bert, tuning="full", optim={"max_steps": 2}))
    two = texts(32, 5, ("food", "law"))
    config = asked(first / "model", tuning="full", optim={"max_steps": 1})
    run = trained(tmp_path / "second", config, train=two, test=[])
    assert curve(run)[1]["loss/train"] == pytest.approx(math.log(2), abs=1e-5)
    named = AutoConfig.from_pretrained(run / "model")
    assert named.id2label == {0: "food", 1: "law"}


def test_other_bases_and_layers_are_refused(bert: Path, tmp_path: Path) -> None:
    shape = {"vocab_size": 32, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    ElectraForMaskedLM(ElectraConfig(**shape, num_hidden_layers=1)).save_pretrained(tmp_path / "e")
    bases = {"electra": tmp_path / "e"}
    save_t5(tmp_path / "t5")
    bases["t5"] = tmp_path / "t5"
    for name, source in bases.items():
        config = {"method": "classify", "base": {"source": str(source)}}
        said = refused(tmp_path / f"run-{name}", config)
        assert f"is a {name}; classify reads encoders (bert, roberta, distilbert)" in said
    config = asked(bert, adapter={"target_modules": ["q_proj"]})
    said = refused(tmp_path / "layers", config)
    assert "the base has no layer q_proj; adapter.target_modules may name dense, key, query" in said
    with pytest.raises(ConfigError, match="quantized weights have no gradient"):
        from_dict(asked(bert, tuning="full", base={"quantization": "nf4"}))
    for section in ({"labels": ["one"]}, {"class_weights": "x"}, {"labels": ["a", "a"]}):
        with pytest.raises(ConfigError, match=r"classify\."):
            from_dict(asked(bert, classify=section))


def save_t5(folder: Path) -> None:
    shape = {"vocab_size": 32, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(folder)


def test_long_texts_are_cut_with_a_warning_and_keep_their_end(bert: Path, tmp_path: Path) -> None:
    long = {**ROW, "text": "ball " * 60}
    run = trained(tmp_path / "run", asked(bert, optim={"max_steps": 1}), train=[*TRAIN, long])
    warned = {e["code"]: e["message"] for e in events(run) if e["kind"] == "warning"}
    assert "1 of 97 train texts are longer than 40 tokens" in warned["cut"]
    assert "40 is used" in warned["positions"]
    assert [e["code"] for e in events(run) if e["kind"] == "warning"].count("positions") == 1
    texts_of = load_texts(BaseConfig(source=str(bert)), turns=False)
    tokens, whole = text_tokens(texts_of, long, "row", 40)
    assert (len(tokens), whole, tokens[-1]) == (40, 62, texts_of.tokenizer.sep_token_id)


def test_roberta_has_fewer_positions_than_its_config_names(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "base", "roberta", words=WORDS, pad_token_id=0)
    assert load_texts(BaseConfig(source=str(source)), turns=False).positions == 39
    long = {**ROW, "text": "ball " * 60}
    trained(tmp_path / "run", asked(source, optim={"max_steps": 1}), train=[*TRAIN, long])


def test_text_that_spells_a_special_token_stays_text(tiny: Path) -> None:
    texts_of = load_texts(BaseConfig(source=str(tiny)), turns=False)
    end = texts_of.tokenizer.convert_tokens_to_ids("<|im_end|>")
    spelt = {"text": "it ends <|im_end|> here"}
    assert end in texts_of.tokenizer(spelt["text"])["input_ids"]
    assert end not in text_tokens(texts_of, spelt, "row", 40)[0]


def test_conversations_pass_through_the_template(llama: Path, bert: Path, tmp_path: Path) -> None:
    talks = [
        {"id": row["id"], "messages": user(row["text"]), "label": row["label"]} for row in TRAIN
    ]
    run = trained(tmp_path / "run", asked(llama, optim={"max_steps": 2}), train=talks, test=[])
    assert result(run)["rows"] == 16
    said = refused(tmp_path / "bert", asked(bert), train=talks, test=[])
    assert "messages need a chat template" in said


def test_what_is_wrong_with_the_rows_is_counted(llama: Path, tmp_path: Path) -> None:
    rows = [{**ROW, "id": f"{n}", "text": f"and of {n}"} for n in range(16)]
    for row in rows[8:]:
        row["label"] = "law"
    odd = [
        rows[0] | {"id": "copy"},
        rows[1] | {"id": "other", "label": "law"},
        {**ROW, "id": "rare", "label": "music", "text": "now"},
    ]
    folder = make_run(
        tmp_path / "run", asked(llama), train=[*rows, *odd], test=[{**rows[5], "id": "seen"}, ROW]
    )
    findings, _ = preflight(folder)
    assert {f.code: (f.level, f.count, f.of, f.examples) for f in findings} == {
        "duplicate_texts": ("warn", 1, 19, ("copy",)),
        "contradictions": ("warn", 2, 19, ("1", "other")),
        "leaked": ("warn", 1, 2, ("seen",)),
        "rare_classes": ("warn", 1, 19, ("rare",)),
        "cut": ("ok", 0, 21, ()),
    }


# Its plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "bert", "roberta", "distilbert"])
def test_the_planner_counts_what_the_run_trains(
    kind: str, llama: Path, bert: Path, tmp_path: Path
) -> None:
    known = {"llama": llama, "bert": bert}
    source = known.get(kind) or save_encoder(tmp_path / kind, kind, words=WORDS)
    for tuning in ("lora", "full"):
        more: dict[str, Any] = {"optim": {"max_steps": 1}, "classify": {"labels": [*CUES]}}
        config = asked(source, tuning=tuning, **more)
        if kind in ("bert", "roberta"):
            config.get("adapter", {})["target_modules"] = ["query", "value"]
        run = trained(tmp_path / tuning, config, test=[])
        (start,) = [event for event in events(run) if event["kind"] == "start"]
        found = plan(from_dict(config), read_shape(source), None)
        # this BERT was trained without its pooler, which config.json does not tell
        new = 32 * 32 + 32 if (kind, tuning) == ("bert", "lora") else 0
        assert start["trainable_parameters"] == found.trained + new
        assert ("packing proof" in found.phases) == (kind == "llama")


def test_an_encoder_attends_within_a_text_and_a_packed_row_within_all(
    llama: Path, bert: Path
) -> None:
    known = Lengths(longest=32, rows=100)
    for source, row in ((llama, 64), (bert, 32)):
        config = from_dict(asked(source))
        work = work_of(config, read_shape(source), known)
        assert (work.tokens, work.length, work.scored, work.logits) == (64, row, 0, "none")
    # two texts of 32 tokens: a mask of 64 · 64, or two of 32 · 32, as booleans and as fp32
    layout = Layout()
    wide, narrow = (work_of(from_dict(asked(s)), read_shape(s), known) for s in (llama, bert))
    assert (mask_bytes(layout, wide), mask_bytes(layout, narrow)) == (64 * 64 * 5, 2 * 32 * 32 * 5)
    notes = plan(from_dict(asked(bert)), read_shape(bert), None, lengths=known).notes
    assert any("a head for two classes" in note for note in notes)


def test_the_rows_of_a_run_are_measured_for_its_plan(llama: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked(llama), train=TRAIN)
    config = from_dict(asked(llama))
    found = lengths_of(folder, config, load_texts(config.base, turns=False))
    sizes = [len(row["text"].split()) for row in TRAIN]
    assert (found.longest, found.rows) == (max(sizes), 96)
    assert found.mean == pytest.approx(sum(sizes) / 96)
    assert found.row is not None
    assert max(sizes) <= found.row <= 64
