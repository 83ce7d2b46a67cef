"""Bases that our arithmetic does not cover are refused; those it covers give the model's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from tests.engine.tiny import (
    events,
    make_run,
    preference_row,
    result,
    save_tiny,
    save_tokenizer,
    user,
)
from training.engine.__main__ import main
from training.engine.config import BaseConfig
from training.engine.data import prompt_tokens
from training.engine.errors import BaseModelError
from training.engine.models import load_base

TRAIN = [preference_row(n) for n in range(4)]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "initializer_range": 0.3,
}


def save(folder: Path, kind: Any, config: Any, **settings: Any) -> Path:
    tokenizer = save_tokenizer(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    ids |= {"bos_token_id": tokenizer.bos_token_id, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    model = kind(config(**{**SMALL, **ids, **settings}))
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias, std=1.0)
    model.save_pretrained(folder)
    return folder


def dpo(base: Path | str, **more: Any) -> dict[str, Any]:
    return {"method": "dpo", "base": {"source": str(base)}, **more}


def edit(path: Path, **changes: Any) -> None:
    """Lay changes over a JSON file; None removes a key."""
    data = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in data.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "config", "settings"),
    [
        (Gemma3ForCausalLM, Gemma3TextConfig, {"final_logit_softcapping": 30.0}),
        (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 8.0}),
        (CohereForCausalLM, CohereConfig, {"logit_scale": 0.0625}),
        (PhiForCausalLM, PhiConfig, {}),
    ],
    ids=["soft cap", "Granite's scale", "Cohere's scale", "a bias"],
)
def test_a_head_that_does_more_than_multiply_is_refused_for_training(
    kind: Any, config: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = save(tmp_path / "base", kind, config, **settings)
    folder = make_run(tmp_path / "run", dpo(base), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert "choose another base" in found["reason"]


def test_such_a_base_still_answers(tmp_path: Path) -> None:
    # sampling reads the model's own logits, which are right whatever its head does
    base = save(tmp_path / "base", GraniteForCausalLM, GraniteConfig, logits_scaling=8.0)
    prompts = [{"id": "1", "prompt": user("Hello?")}]
    config = {"method": "sample", "base": {"source": str(base)}, "sample": {"max_new_tokens": 3}}
    folder = make_run(tmp_path / "run", config, prompts=prompts)
    assert main(["run", str(folder)]) == 0


@pytest.mark.parametrize(
    ("kind", "config", "settings"),
    [
        (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
        (GraniteForCausalLM, GraniteConfig, {"embedding_multiplier": 12.0, "logits_scaling": 1.0}),
        (Gemma3ForCausalLM, Gemma3TextConfig, {"final_logit_softcapping": None}),
    ],
    ids=["an untied head", "scaled embeddings", "Gemma without its cap"],
)
def test_these_train(kind: Any, config: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    base = save(tmp_path / "base", kind, config, **settings)
    asked = dpo(base, optim={"lr": 5e-3, "batch_size": 2, "epochs": 4})
    folder = make_run(tmp_path / "run", asked, train=TRAIN, test=TRAIN)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert result(folder)["metrics"]["dpo/margin_after"] > 0.05


def test_rows_beyond_the_base_s_positions_are_cut_and_counted(tmp_path: Path) -> None:
    # GPT-2 has a table of positions: one more token is an index error deep in torch.
    base = save(tmp_path / "base", GPT2LMHeadModel, GPT2Config, n_positions=64)
    long = preference_row(1, good="yes indeed " * 60)
    asked = dpo(base, adapter={"target_modules": ["c_attn"]})
    folder = make_run(tmp_path / "run", asked, train=[*TRAIN, long])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    warnings = {e["code"]: e["message"] for e in events(folder) if e["kind"] == "warning"}
    assert "64 positions" in warnings["positions"]
    assert "1 train responses cut" in warnings["cut"]


def test_answers_stay_within_the_base_s_positions(tmp_path: Path) -> None:
    base = save(tmp_path / "base", GPT2LMHeadModel, GPT2Config, n_positions=64)
    prompts = [{"id": "short", "prompt": user("Hi?")}, {"id": "long", "prompt": user("Hi? " * 30)}]
    config = {"method": "sample", "base": {"source": str(base)}, "sample": {"max_new_tokens": 20}}
    folder = make_run(tmp_path / "run", config, prompts=prompts)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert result(folder)["rows"] == 1
    config["sample"]["max_new_tokens"] = 64
    folder = make_run(tmp_path / "none", config, prompts=prompts)
    assert main(["run", str(folder)]) == 1
    assert "max_new_tokens" in result(folder)["reason"]


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    (base / "chat_template.jinja").unlink(missing_ok=True)
    edit(base / "tokenizer_config.json", chat_template=None)
    folder = make_run(tmp_path / "run", dpo(base), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    assert "no chat template" in result(folder)["reason"]
    assert "instruct" in result(folder)["reason"]


def without_eos(base: Path, template: str) -> None:
    edit(base / "tokenizer_config.json", eos_token=None, chat_template=None)
    (base / "chat_template.jinja").write_text(template, encoding="utf-8")


PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


def test_a_base_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    without_eos(base, PLAIN)
    for path in (base / "config.json", base / "generation_config.json"):
        text = path.read_text(encoding="utf-8")
        assert '"eos_token_id": 2' in text  # left out, the model type's own default would come back
        path.write_text(text.replace('"eos_token_id": 2', '"eos_token_id": null'), encoding="utf-8")
    folder = make_run(tmp_path / "run", dpo(base), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    assert "end-of-sequence" in result(folder)["reason"]


def test_an_end_of_sequence_that_only_the_model_names_is_used(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    without_eos(base, PLAIN)
    edit(base / "config.json", eos_token_id=[2, 0])
    assert load_base(BaseConfig(source=str(base))).eos_id == 2


def test_an_answer_ends_with_the_token_that_the_chat_template_ends_a_turn_with(
    tmp_path: Path,
) -> None:
    # As in Gemma and Phi-3: the tokenizer's EOS is not what ends a turn. Taught with the EOS, the
    # model would never write the end that chat clients wait for.
    base = save_tiny(tmp_path / "base")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<file_sep>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    edit(base / "tokenizer_config.json", chat_template=None)
    (base / "chat_template.jinja").write_text(template, encoding="utf-8")
    loaded = load_base(BaseConfig(source=str(base)))
    assert loaded.eos_id == loaded.tokenizer.convert_tokens_to_ids("<file_sep>")
    assert loaded.eos_id != loaded.tokenizer.eos_token_id


def test_a_template_that_refuses_a_row_says_which(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    edit(base / "tokenizer_config.json", chat_template=None)
    (base / "chat_template.jinja").write_text(template + PLAIN, encoding="utf-8")
    row = TRAIN[0] | {"prompt": [{"role": "system", "content": "Be kind."}, *user("Hello?")]}
    folder = make_run(tmp_path / "run", dpo(base), train=[TRAIN[1], row])
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert "train row 2" in found["reason"]
    assert "no system" in found["reason"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: os.truncate(path / "model.safetensors", 1000), "could not be loaded"),
        (lambda path: (path / "tokenizer.json").write_text("{"), "could not be loaded"),
        (lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        (lambda path: edit(path / "config.json", model_type="unheard-of"), "could not be loaded"),
        (lambda path: (path / "model.safetensors").unlink(), "no weights"),
    ],
    ids=["cut weights", "tokenizer", "config", "unknown type", "no weights"],
)
def test_a_damaged_base_is_refused(damage: Any, words: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    damage(base)
    with pytest.raises(BaseModelError, match=words):
        load_base(BaseConfig(source=str(base)))


@pytest.mark.parametrize("source", ["nobody/no-such-base", "no-such-base"])
def test_a_hub_id_that_cannot_be_reached_is_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", dpo(source), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    assert f"the base '{source}' could not be loaded" in result(folder)["reason"]
    assert "Traceback" not in capsys.readouterr().err


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    # a model in training mode would also drop out attention, which no module of its own does
    base = save_tiny(tmp_path / "base", attention_dropout=0.5)
    weights = []
    for on in (False, True):
        asked = dpo(base, gradient_checkpointing=on, optim={"lr": 5e-3, "batch_size": 2})
        folder = make_run(tmp_path / f"run-{on}", asked, train=TRAIN, test=TRAIN)
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]
        weights.append(result(folder)["metrics"]["dpo/margin_after"])
    assert weights[0] == pytest.approx(weights[1], abs=1e-5)


def test_a_layer_name_that_the_base_lacks_is_refused(tiny: Path, tmp_path: Path) -> None:
    # PEFT only complains when no name fits at all
    asked = dpo(tiny, adapter={"target_modules": ["q_proj", "v_porj"]})
    folder = make_run(tmp_path / "run", asked, train=TRAIN)
    assert main(["run", str(folder)]) == 1
    assert "v_porj" in result(folder)["reason"]
    assert "q_proj" not in result(folder)["reason"].split("has no layer")[1].split(";")[0]


def test_text_that_is_no_latin_trains(tiny: Path, tmp_path: Path) -> None:
    rows = [preference_row(n, good="да, конечно 是的 نعم 👍🏽", bad="нет 不 لا") for n in range(4)]
    folder = make_run(tmp_path / "run", dpo(tiny), train=rows)
    assert main(["run", str(folder)]) == 0


def test_prompt_tokens_are_those_of_the_template(tiny: Path) -> None:
    base = load_base(BaseConfig(source=str(tiny)))
    text = base.tokenizer.decode(list(prompt_tokens(base, user("Hello?"))))
    assert text.endswith("<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n")
