"""Adapters that others load, adapters of others, and which adapter is whose reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tests.engine.tiny import assistant, events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.batching import Packing
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.data import Branch, Tree, prompt_tokens, response_tokens
from training.engine.errors import BaseModelError
from training.engine.logprobs import response_logps
from training.engine.models import Base, load_base

PAIRS = [preference_row(n) for n in range(8)]
PACKING = Packing(512, shared=True)


def tree_of(base: Base) -> Tree:
    prompt = prompt_tokens(base, user("Question number 3?"))
    return Tree(prompt, (Branch(response_tokens(base, "yes indeed 3")),))


def ours(base_folder: Path, adapter: Path) -> float:
    base = load_base(BaseConfig(source=str(base_folder)))
    base.add_adapter("policy", AdapterConfig(), init_from=str(adapter))
    with base.use("policy"):
        return response_logps(base, [tree_of(base)], PACKING).item()


def stock(base_folder: Path, adapter: Path) -> float:
    """The same answer's log-prob by transformers and PEFT alone."""
    tree = tree_of(load_base(BaseConfig(source=str(base_folder))))
    (branch,) = tree.branches
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), adapter)
    ids = torch.tensor([tree.prompt + branch.tokens])
    with torch.no_grad():
        logps = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
    start = len(tree.prompt) - 1
    return sum(logps[start + i, token].item() for i, token in enumerate(branch.tokens))


@pytest.fixture(scope="module")
def sft_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sft"
    rows = [{"id": str(n), "messages": user(f"q {n}") + assistant("yes indeed")} for n in range(8)]
    config = {"method": "sft", "base": {"source": str(tiny)}, "optim": {"lr": 2e-2, "epochs": 2}}
    make_run(folder, config, train=rows)
    assert main(["run", str(folder)]) == 0
    return folder / "adapter"


def foreign(folder: Path, base_folder: Path, **settings: Any) -> Path:
    """An adapter that stock PEFT made and saved."""
    torch.manual_seed(5)
    config = LoraConfig(
        task_type="CAUSAL_LM", **{"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    return folder


def test_stock_peft_gives_our_log_probs(tiny: Path, sft_adapter: Path) -> None:
    assert ours(tiny, sft_adapter) == pytest.approx(stock(tiny, sft_adapter), abs=1e-4)
    base = load_base(BaseConfig(source=str(tiny)))
    bare = response_logps(base, [tree_of(base)], PACKING).item()
    assert abs(ours(tiny, sft_adapter) - bare) > 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 32}},
        {"layers_to_transform": [1]},
        {"target_modules": "all-linear"},
    ],
    ids=["plain", "rsLoRA", "DoRA", "patterns", "one layer", "all linear"],
)
def test_an_adapter_of_stock_peft_says_here_what_it_says_there(
    settings: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    adapter = foreign(tmp_path / "adapter", tiny, **settings)
    assert ours(tiny, adapter) == pytest.approx(stock(tiny, adapter), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "lm_head"]}, "language-model head"),
    ],
)
def test_an_adapter_that_is_more_than_its_matrices_is_refused(
    settings: dict[str, Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    adapter = foreign(tmp_path / "adapter", tiny, **settings)
    with pytest.raises(BaseModelError, match=words):
        ours(tiny, adapter)


def test_a_damaged_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    whole = foreign(tmp_path / "adapter", tiny)
    for name, file, text, words in (
        ("weights", "adapter_model.safetensors", "rubbish", "cannot be read"),
        ("config", "adapter_config.json", "{", "cannot be read"),
        ("list", "adapter_config.json", "[]", "not a LoRA adapter"),
        ("no rank", "adapter_config.json", '{"peft_type": "LORA"}', "incomplete"),
    ):
        damaged = tmp_path / name
        shutil.copytree(whole, damaged)
        (damaged / file).write_text(text, encoding="utf-8")
        with pytest.raises(BaseModelError, match=words):
            ours(tiny, damaged)


def dpo(tiny: Path, **more: Any) -> dict[str, Any]:
    optim = {"lr": 5e-3, "batch_size": 4, "epochs": 2}
    return {"method": "dpo", "base": {"source": str(tiny)}, "optim": optim, **more}


def test_dpo_that_starts_from_sft_has_the_sft_policy_as_its_reference(
    tiny: Path, sft_adapter: Path, tmp_path: Path
) -> None:
    # With the bare base as reference the first margin would be far from 0 (step-0 check), and
    # what `evaluate` measures against the SFT adapter would differ from what training measured.
    asked = dpo(tiny, adapter={"init_from": str(sft_adapter)})
    folder = make_run(tmp_path / "dpo", asked, train=PAIRS, test=PAIRS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    trained = result(folder)["metrics"]
    assert trained["dpo/margin_before"] == 0.0
    measured = {}
    for name, reference in (("sft", str(sft_adapter)), ("bare", None)):
        section = {"policy_adapter": str(folder / "adapter"), "reference_adapter": reference}
        config = {"method": "evaluate", "base": {"source": str(tiny)}, "evaluate": section}
        evaluation = make_run(tmp_path / name, config, test=PAIRS)
        assert main(["run", str(evaluation)]) == 0, result(evaluation)["reason"]
        measured[name] = result(evaluation)["metrics"]["dpo/margin_after"]
    assert measured["sft"] == pytest.approx(trained["dpo/margin_after"], abs=1e-5)
    assert abs(measured["bare"] - measured["sft"]) > 1e-3


def test_cached_reference_log_probs_know_the_adapter_s_scale(
    tiny: Path, sft_adapter: Path, tmp_path: Path
) -> None:
    # the same matrices with another alpha are another reference
    louder = tmp_path / "louder"
    shutil.copytree(sft_adapter, louder)
    config = json.loads((louder / "adapter_config.json").read_text(encoding="utf-8"))
    config["lora_alpha"] *= 4
    (louder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, start in (("one", sft_adapter), ("two", louder)):
        asked = dpo(tiny, adapter={"init_from": str(start)})
        folder = make_run(tmp_path / name, asked, train=PAIRS)
        # a stale reference fails the step-0 check
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]


def test_every_metric_and_event_of_dpo_is_listed(tiny: Path, tmp_path: Path) -> None:
    from training.engine.metrics import METRICS

    folder = make_run(tmp_path / "dpo", dpo(tiny), train=PAIRS, test=PAIRS)
    assert main(["run", str(folder)]) == 0
    names = {n for e in events(folder) if e["kind"] == "metrics" for n in e["values"]}
    assert names | set(result(folder)["metrics"]) <= set(METRICS)
