"""Continued pretraining: every token counts once, in its own document alone, and it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engine.test_distributed import assert_same, together
from tests.engine.test_resume import curve, killed_after
from tests.engine.tiny import events, make_run, result, save_words
from training.engine.__main__ import main
from training.engine.advisor_presets import ENCODER_SHAPE as BERT_SHAPE
from training.engine.batching import Packing
from training.engine.config import BaseConfig
from training.engine.data import Branch, Tree
from training.engine.models import Base, load_base
from training.engine.planner_calibrate import Silent
from training.engine.pretrain_data import cut, encode_documents, lead_of, replayed
from training.engine.pretrain_metrics import document_nats, figures

#: A language of two sentences; its general text says other ones.
DOMAIN = ["w1 w2 w3 w4 w5 w6", "w2 w3 w4 w5 w6 w1 w2 w3"]
GENERAL = ["w7 w8 w9 w10 w11", "w11 w9 w7 w8 w10 w9", "w8 w7 w10"]
OPTIM = {"lr": 1e-2, "batch_size": 4, "epochs": 4}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("words"), num_hidden_layers=2)


def rows(texts: list[str], times: int = 1) -> list[dict[str, Any]]:
    return [
        {"id": f"{turn}-{number}", "text": text}
        for turn in range(times)
        for number, text in enumerate(texts)
    ]


def asked(words: Path, **more: Any) -> dict[str, Any]:
    config = {"method": "pretrain", "base": {"source": str(words)}, "optim": OPTIM, "threads": 1}
    config |= {"data": {"max_length": 8, "max_prompt_length": 4}}
    return {**config, "checkpoint_every": 1, "checkpoint_keep": 0, **more}


def files(**more: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    test = rows(["w3 w4 w5 w6 w1 w2", "w6 w1 w2 w3", "w5 w6 w1 w2 w3 w4 w5"])
    return {"train": rows(DOMAIN, 6), "test": test, "general": rows(GENERAL), **more}


def encoded(base: Base, texts: list[str], longest: int = 1024, *, ended: bool = False) -> Any:
    quiet: Any = Silent()
    return encode_documents(base, rows(texts), longest, quiet, "train", ended=ended)


def test_packed_documents_cost_what_transformers_own_loss_says(base: Base) -> None:
    texts = ["A river rises in the hills.", "Put the flour in a bowl, and the salt.", "Yes, sir?"]
    documents = encoded(base, texts)
    ours = document_nats(base, documents, Packing(2048, shared=True))
    for text, document, nats in zip(texts, documents, ours, strict=True):
        ids = torch.tensor([base.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            theirs = base.causal(input_ids=ids, labels=ids).loss
        assert nats / document.n_scored == pytest.approx(float(theirs), abs=1e-5)
        assert document.n_scored == ids.shape[1] - 1
        first = base.tokenizer.decode(ids[0, :1])
        assert document.n_bytes == len(text.encode()) - len(first.encode())


def test_windows_score_every_token_once_and_the_end_last(words: Path) -> None:
    base = load_base(BaseConfig(source=str(words)))
    text = " ".join(f"w{number % 12}" for number in range(50))
    ids = base.tokenizer(text)["input_ids"]
    (document,) = encoded(base, [text], 8, ended=True)
    scored = [token for window in document.windows for token in window.branches[0].tokens]
    assert scored == [*ids[1:], base.tokenizer.eos_token_id]
    assert max(window.length for window in document.windows) == 8
    given = [window.prompt for window in document.windows]
    assert given == [(ids[0],), *((ids[n],) for n in range(7, 50, 7))]


def test_a_beginning_of_sequence_stands_before_every_window() -> None:
    assert cut([1, 2, 3, 4, 5], [9], 4) == (
        Tree((9,), (Branch((1, 2, 3)),)),
        Tree((9, 3), (Branch((4, 5)),)),
    )
    assert cut([1], [], 4) == ()


def test_what_the_tokenizer_puts_in_front_is_given(words: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    base = load_base(BaseConfig(source=str(words)))
    assert lead_of(base) == ()
    inner: Any = base.tokenizer
    inner._tokenizer.post_processor = TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", 1)]
    )
    assert lead_of(base) == (1,)
    (document,) = encoded(base, ["w1 w2"])
    assert document.windows[0].prompt == (1,)
    assert (document.n_scored, document.n_bytes) == (2, 5)


def test_text_that_spells_a_special_token_stays_text(base: Base) -> None:
    (document,) = encoded(base, ["He wrote <|im_end|> there."], ended=True)
    tokens = document.windows[0].branches[0].tokens
    assert tokens.count(base.tokenizer.eos_token_id) == 1


def test_figures_by_hand() -> None:
    # 2 and 4 tokens of 1 bit each before, of half a bit after
    documents: Any = [encodedlike(2, 3), encodedlike(4, 6)]
    bit = math.log(2)
    found, became = figures("domain", documents, [2 * bit, 4 * bit], [bit, 2 * bit])
    assert found["pretrain/domain_perplexity_before"] == pytest.approx(2)
    assert found["pretrain/domain_perplexity_after"] == pytest.approx(math.sqrt(2))
    assert found["pretrain/domain_change"] == pytest.approx(math.sqrt(0.5) - 1)
    assert found["pretrain/domain_change_high"] == pytest.approx(math.sqrt(0.5) - 1)
    assert found["pretrain/domain_bits_per_byte_before"] == pytest.approx(6 / 9)
    assert found["pretrain/domain_bits_per_byte_after"] == pytest.approx(3 / 9)
    assert became == "fell"
    # one document more, the other as much less: nothing can be said
    found, became = figures("general", documents, [1.0, 4.0], [2.0, 3.0])
    assert became == "unclear"
    assert found["pretrain/general_change_low"] == pytest.approx(math.exp(-0.25) - 1)
    assert found["pretrain/general_change_high"] == pytest.approx(math.exp(0.5) - 1)
    found, became = figures("general", documents[:1], [1.0], [2.0])
    assert became == "unclear"  # of a single document no interval is known
    assert "pretrain/general_change_low" not in found
    assert np.isfinite([*found.values()]).all()


def encodedlike(tokens: int, n_bytes: int) -> Any:
    from training.engine.pretrain_data import Document

    return Document("d", (Tree((0,), (Branch((1,) * tokens),)),), n_bytes)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_learns_the_domain_and_tells_what_it_forgot(
    tuning: str, words: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", asked(words, tuning=tuning), **files())
    assert main(["run", str(folder)]) == 0
    found = result(folder)
    metrics, told = found["metrics"], found["pretraining"]
    assert metrics["pretrain/domain_change_high"] < -0.15
    assert told["domain"]["perplexity"] == "fell"
    assert (
        metrics["pretrain/domain_bits_per_byte_after"]
        < (metrics["pretrain/domain_bits_per_byte_before"])
    )
    # 3 documents of 6, 4 and 7 words, the first of each given
    assert (told["domain"]["documents"], told["domain"]["tokens"]) == (3, 14)
    assert told["general"]["source"] == "data/general.jsonl"
    # a model that knew nothing is still told what became of other text
    assert told["general"]["perplexity"] in ("fell", "rose", "unclear")
    assert metrics["pretrain/general_perplexity_before"] > 1
    assert (found["rows"], found["steps"]) == (12, 20)  # 18 windows, 5 steps an epoch
    assert found["model" if tuning == "full" else "adapter"]
    if tuning == "full":  # stock transformers sees what was measured
        stock = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
        base = load_base(BaseConfig(source=str(words)))
        nats = tokens = 0.0
        for row in files()["test"]:
            ids = torch.tensor([base.tokenizer(row["text"])["input_ids"]])
            with torch.no_grad():
                nats += float(stock(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
        assert metrics["pretrain/domain_perplexity_after"] == pytest.approx(
            math.exp(nats / tokens), rel=1e-4
        )


def test_a_run_that_was_killed_ends_with_the_same_bytes(words: Path, tmp_path: Path) -> None:
    config = asked(words, adapter={"dropout": 0.3}, pretrain={"replay": 0.25})
    config["optim"] = {**OPTIM, "epochs": 1}
    given = files(replay=rows(["w9 w8 w7 w11", "w10 w11 w7", "w8 w8 w9 w9 w7 w11 w10 w10 w8"]))
    whole = make_run(tmp_path / "whole", config, **given)
    assert main(["run", str(whole)]) == 0
    for step in (1, 3, len(curve(whole))):
        again = killed_after(whole, step, tmp_path / f"cut-{step}")
        assert main(["run", str(again)]) == 0, result(again)["reason"]
        name = "adapter/adapter_model.safetensors"
        assert (again / name).read_bytes() == (whole / name).read_bytes()
        assert curve(again) == curve(whole)
        for part in ("metrics", "pretraining", "rows", "steps"):
            assert result(again)[part] == result(whole)[part]


def test_two_processes_train_what_one_does(words: Path, tmp_path: Path) -> None:
    config = asked(words)
    config["optim"] = {**OPTIM, "epochs": 1}
    alone, two, parts = (tmp_path / name for name in ("alone", "two", "parts"))
    for folder in (alone, two, parts):
        make_run(folder, config, **files())
    assert main(["run", str(alone)]) == 0
    ended = together([two, parts])
    assert [each.stdout.split() for each in ended] == [[*"00"]] * 2, ended
    for folder in (two, parts):
        assert_same(alone, folder)
        assert result(folder)["metrics"] == pytest.approx(result(alone)["metrics"], rel=1e-4)


def test_replay_is_its_share_and_says_where_it_falls_short(words: Path, tmp_path: Path) -> None:
    general = [Tree((0,), (Branch((number,)),)) for number in range(50)]
    assert len(replayed(30, general, 0.25, seed=1)) == 10
    assert replayed(30, general, 0.25, seed=1) == replayed(30, general, 0.25, seed=1)
    assert replayed(30, general[:3], 0.5, seed=1) == general[:3]
    config = asked(words, pretrain={"replay": 0.5})
    folder = make_run(tmp_path / "run", config, **files(replay=rows(["w9 w8 w7"])))
    assert main(["run", str(folder)]) == 0
    told = {e["code"]: e["message"] for e in events(folder) if e["kind"] == "warning"}
    assert "pretrain.replay asks for 50.0%" in told["replay_short"]
    assert result(folder)["rows"] == 12  # of data.train alone


def test_without_files_of_its_own_general_text_is_the_enclosed(tiny: Path, tmp_path: Path) -> None:
    config = asked(tiny)
    config |= {"data": {}, "optim": {"max_steps": 1}}
    folder = make_run(tmp_path / "run", config, train=rows(["One text.", "And another one."]))
    assert main(["run", str(folder)]) == 0
    found = result(folder)
    assert found["pretraining"]["general"]["source"] == "enclosed"
    assert found["pretraining"]["general"]["documents"] > 5
    assert "domain" not in found["pretraining"]
    told = {e["code"] for e in events(folder) if e["kind"] == "warning"}
    assert "nothing_held_out" in told


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([{"id": "a", "text": "  "}, {"id": "b", "text": ""}], "the corpus is empty"),
        ([{"id": "a"}], "train row 1 (a): text is None"),
        ([{"id": "a", "text": "w1 w2"}, {"text": 7}], "train row 2 (no id): text is 7"),
        ([{"id": "a", "text": "w1 w2", "title": 3}], "title is 3"),
        ([{"id": "a", "text": "w\x001 w\x002"}], "zero bytes"),
        ([{"id": "a", "text": "wrong \ufffd\ufffd"}], "replacement characters"),
        ([{"id": "a", "text": "half \ud800"}], "not a text"),
    ],
)
def test_what_is_no_document_is_refused_by_its_row(
    train: list[dict[str, Any]], said: str, words: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", asked(words), train=train)
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert said in found["reason"]
    assert found["adapter"] is None


def test_another_encoding_is_refused_naming_the_line(words: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked(words), train=rows(DOMAIN))
    path = folder / "data" / "train.jsonl"
    path.write_bytes(path.read_bytes() + '{"text": "Grüße"}\n'.encode("latin-1"))
    assert main(["run", str(folder)]) == 1
    assert "line 3 is not UTF-8 text" in result(folder)["reason"]


def test_a_file_without_rows_is_refused(words: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", asked(words), train=[])
    assert main(["run", str(folder)]) == 1
    assert "holds no rows" in result(folder)["reason"]
    assert main(["preflight", str(folder)]) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pretrain": {"replay": 1.0}}, "pretrain.replay is 1.0; allowed: 0 up to below 1"),
        ({"pretrain": {"mix": 1}}, "pretrain has unknown fields: mix"),
        ({"pretrain": {"replay": 0.5}}, "there is no data/replay.jsonl to replay"),
        ({"alarms": {"kl_budget": "stop"}}, "kl_budget"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    more: dict[str, Any], said: str, words: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", asked(words, **more), train=rows(DOMAIN))
    status = main(["run", str(folder)])
    assert status == 1
    assert said in result(folder)["reason"]


def test_preflight_counts_copies_blanks_and_leaks(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = files(test=rows([DOMAIN[0], "w9 w9"]))
    given["train"] = [*rows(DOMAIN), {"id": "again", "text": DOMAIN[1]}, {"id": "b", "text": ""}]
    given["general"] = rows(["w8 w9 w7"])
    given["replay"] = rows(["w8 w9 w7"])
    folder = make_run(tmp_path / "run", asked(words), **given)
    assert main(["preflight", str(folder), "--json"]) == 0
    told = {f["code"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert told["duplicate_documents"]["examples"] == ["again"]
    assert told["blank"]["examples"] == ["b"]
    assert (told["leaked"]["count"], told["leaked"]["of"]) == (2, 3)


def test_the_planner_counts_it_as_texts_of_one_window_each(words: Path, tmp_path: Path) -> None:
    from training.engine.config import from_dict
    from training.engine.errors import BaseModelError
    from training.engine.planner import plan
    from training.engine.planner_calibrate import lengths_of
    from training.engine.planner_shapes import shape_of_source
    from training.engine.token_inspection import load_texts

    run = from_dict(asked(words))
    shape = shape_of_source(str(words))
    counted = plan(run, shape, None)
    talks = from_dict({**asked(words), "method": "sft"})
    assert counted.total_bytes == plan(talks, shape, None).total_bytes
    folder = make_run(tmp_path / "run", asked(words), **files())
    lengths = lengths_of(folder, run, load_texts(run.base, turns=False))
    # 6 words and an end are one window of 7 tokens, 8 words and an end two, of 8 and 2
    assert (lengths.longest, lengths.rows) == (8, 18)
    assert lengths.mean == pytest.approx((7 + 8 + 2) / 3)
    with pytest.raises(BaseModelError, match="pretrain needs a base that writes text"):
        plan(run, BERT_SHAPE, None)
