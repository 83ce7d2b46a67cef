"""What is trained and how it is held: the whole base, kinds of adapters, optimizers, merging."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.engine.test_adapters import foreign, ours, stock
from tests.engine.test_resume import killed_after
from tests.engine.tiny import assistant, events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.batching import Packing, pack
from training.engine.checkpoint import seal
from training.engine.config import AdapterConfig, BaseConfig, config_digest, from_dict, to_dict
from training.engine.data import Branch, Tree, prompt_tokens, response_tokens
from training.engine.errors import BaseModelError, ConfigError
from training.engine.files import sha256_of_file
from training.engine.logprobs import CHUNK, TokenLogProbs, group_logps, response_logps
from training.engine.models import Base, load_base

PAIRS = [preference_row(n) for n in range(6)]
HELD_OUT = [preference_row(n, good="yes indeed, that is so") for n in range(100, 103)]
CONVERSATIONS = [
    {"id": str(n), "messages": user(f"q {n}") + assistant("yes indeed")} for n in range(6)
]
PACKING = Packing(512, shared=True)


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a quarter of the tiny one's weights, since whole copies of it are written."""
    return shrunk(tiny, tmp_path_factory.mktemp("models") / "small", tied=True)


def shrunk(tiny: Path, folder: Path, *, tied: bool) -> Path:
    shutil.copytree(tiny, folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 8}
    config = LlamaConfig.from_pretrained(tiny, **shape, tie_word_embeddings=tied)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def asked(method: str, source: Path, **more: Any) -> dict[str, Any]:
    optim = {"lr": 5e-3, "batch_size": 2, **more.pop("optim", {})}
    held = {"source": str(source), **more.pop("base", {})}
    return {"method": method, "base": held, "optim": optim, "threads": 1, **more}


def trained(folder: Path, config: dict[str, Any]) -> Path:
    files = {"train": CONVERSATIONS if config["method"] == "sft" else PAIRS}
    if config["method"] != "sft":
        files["test"] = HELD_OUT
    make_run(folder, config, **files)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    return folder


def tree_of(base: Base, row: dict[str, Any]) -> Tree:
    answers = (row["chosen"][0]["content"], row["rejected"][0]["content"])
    branches = tuple(Branch(response_tokens(base, answer)) for answer in answers)
    return Tree(prompt_tokens(base, row["prompt"]), branches)


def stock_logps(model: Any, tree: Tree) -> Tensor:
    """Log-probs of a tree's branches by transformers alone, each in a row of its own."""
    sums = []
    for branch in tree.branches:
        ids = torch.tensor([tree.prompt + branch.tokens])
        logps = model(input_ids=ids).logits[0].log_softmax(-1)
        start = len(tree.prompt) - 1
        sums.append(
            torch.stack([logps[start + i, token] for i, token in enumerate(branch.tokens)]).sum()
        )
    return torch.stack(sums)


# Full fine-tuning -------------------------------------------------------------------------------


@pytest.mark.parametrize("states_need_it", [True, False])
def test_the_head_s_gradient_is_that_of_plain_logits(states_need_it: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    n = 2 * CHUNK + 7  # three chunks, the last one short
    states = torch.randn(n, 8, generator=generator).requires_grad_(states_need_it)
    weight = torch.randn(50, 8, generator=generator).requires_grad_()
    targets = torch.randint(0, 50, (n,), generator=generator)
    weights_of_loss = torch.randn(n, generator=generator)
    wanted = [weight, states] if states_need_it else [weight]

    logps = TokenLogProbs.apply(states, weight, targets, 0.7)
    found = torch.autograd.grad((logps * weights_of_loss).sum(), wanted)
    plain = (states @ weight.t() / 0.7).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    expected = torch.autograd.grad((plain * weights_of_loss).sum(), wanted)

    torch.testing.assert_close(logps, plain, atol=1e-5, rtol=1e-5)
    for ours_, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_gets_the_gradient_that_transformers_gives_it(
    tied: bool, tiny: Path, tmp_path: Path
) -> None:
    # a tied head is embeddings too: both gradients have to arrive
    folder = shrunk(tiny, tmp_path / "base", tied=tied)
    base = load_base(BaseConfig(source=str(folder)), tuning="full")
    parameters = base.train_all(head=True)
    assert ("lm_head.weight" in parameters) == (not tied)
    tree = tree_of(base, PAIRS[0])
    (group,) = pack([tree], PACKING)
    _, sums = group_logps(base, group)
    (sums[0, 0] - 0.3 * sums[0, 1]).backward()

    model = AutoModelForCausalLM.from_pretrained(folder)
    theirs = stock_logps(model, tree)
    (theirs[0] - 0.3 * theirs[1]).backward()
    expected = dict(model.named_parameters())
    assert parameters.keys() == expected.keys()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=2e-4, rtol=1e-3)


def test_full_dpo_is_measured_against_the_base_as_it_was(small: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "dpo", asked("dpo", small, tuning="full"))
    found = result(folder)
    assert found["adapter"] is None
    assert (folder / "model").resolve() == (folder / found["model"]).resolve()
    assert found["metrics"]["dpo/margin_before"] == 0.0
    policy = AutoModelForCausalLM.from_pretrained(folder / "model")
    reference = AutoModelForCausalLM.from_pretrained(small)  # a copy that was never trained
    base = load_base(BaseConfig(source=str(small)))
    margins = []
    with torch.no_grad():
        for row in HELD_OUT:
            tree = tree_of(base, row)
            ratios = stock_logps(policy, tree) - stock_logps(reference, tree)
            margins.append(0.1 * (ratios[0] - ratios[1]).item())
    mean = sum(margins) / len(margins)
    assert found["metrics"]["dpo/margin_after"] == pytest.approx(mean, abs=1e-4)
    assert mean > 0.1
    before = load_file(small / "model.safetensors")
    after = load_file(folder / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_a_trained_model_is_a_base_to_start_from(small: Path, tmp_path: Path) -> None:
    first = trained(tmp_path / "sft", asked("sft", small, tuning="full"))
    dtype = {"dtype": "bfloat16"}  # weights and moments stay fp32, the passes are in bf16
    second = asked("dpo", first / "model", tuning="full", base=dtype, gradient_checkpointing=True)
    folder = trained(tmp_path / "dpo", second)
    assert result(folder)["metrics"]["dpo/margin_after"] > 0.1
    weights = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    start = next(event for event in events(folder) if event["kind"] == "start")
    assert start["trainable_parameters"] == sum(tensor.numel() for tensor in weights.values())
    template = AutoTokenizer.from_pretrained(folder / "model").chat_template
    assert template == AutoTokenizer.from_pretrained(small).chat_template


def test_a_full_reward_model_scores_the_same_in_stock_transformers(
    tiny: Path, tmp_path: Path
) -> None:
    # an untied language-model head gets no gradient here, and no place in what is saved
    base = shrunk(tiny, tmp_path / "base", tied=False)
    config = asked("reward", base, tuning="full", optim={"lr": 2e-2})
    folder = trained(tmp_path / "reward", config)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert model.config.num_labels == 1
    encoder = load_base(BaseConfig(source=str(base)))
    margins = []
    for row in HELD_OUT:
        tree = tree_of(encoder, row)
        ids = [{"input_ids": list(tree.prompt + branch.tokens)} for branch in tree.branches]
        with torch.no_grad():  # padded side by side, as others score
            scores = model(**tokenizer.pad(ids, return_tensors="pt")).logits.squeeze(-1)
        margins.append((scores[0] - scores[1]).item())
    mean = sum(margins) / len(margins)
    assert result(folder)["metrics"]["reward/margin"] == pytest.approx(mean, abs=1e-4)
    assert mean > 0.01
    with pytest.raises(BaseModelError, match="reward model"):
        load_base(BaseConfig(source=str(folder / "model")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": {"source": "demo", "quantization": "nf4"}}, "quantized weights have no gradient"),
        ({"base": {"source": "demo", "quantization": "int8"}}, "QLoRA"),
        ({"method": "ppo", "dpo": None, "ppo": {"reward_adapter": "/r"}}, "on the one base"),
        ({"method": "sample", "dpo": None}, "trains nothing"),
        ({"method": "evaluate", "dpo": None, "evaluate": {"policy_adapter": "/p"}}, "base.source"),
        ({"adapter": {"init_from": "/a"}}, "engine merge"),
        ({"adapter": {"r": 8}}, "there is no adapter"),
        ({"tuning": "qlora"}, "allowed: lora, full"),
        ({"tuning": "lora", "optim": {"optimizer": "sgd"}}, "paged_adamw_8bit"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_with_the_reason(
    change: dict[str, Any], words: str
) -> None:
    config = {"method": "dpo", "base": {"source": "demo"}, "tuning": "full", **change}
    with pytest.raises(ConfigError, match=words):
        from_dict({key: value for key, value in config.items() if value is not None})


# Resuming ---------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "full sft": ("sft", {"tuning": "full"}),
    "full reward": ("reward", {"tuning": "full"}),
    "full dpo, 8-bit AdamW": ("dpo", {"tuning": "full", "optim": {"optimizer": "adamw_8bit"}}),
    "DoRA on NF4": ("dpo", {"adapter": {"use_dora": True}, "base": {"quantization": "nf4"}}),
    "rsLoRA, 8-bit AdamW": (
        "sft",
        # 8 bits are for tensors of 4,096 values and more: 256 × 16
        {"adapter": {"use_rslora": True, "r": 256}, "optim": {"optimizer": "adamw_8bit"}},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_it_ends_with_the_same_bytes(
    kind: str, small: Path, tmp_path: Path
) -> None:
    method, settings = KINDS[kind]
    config = asked(method, small, checkpoint_every=1, checkpoint_keep=0, **settings)
    whole = trained(tmp_path / "whole", config)
    if "8-bit" in kind:
        tensors = load_file(next(whole.glob("attempts/*/checkpoints/step-*2/*.safetensors")))
        held = {tensor.dtype for name, tensor in tensors.items() if name.startswith("adam/state1/")}
        assert torch.uint8 in held
        assert any(name.startswith("adam/absmax2/") for name in tensors)
    cut = killed_after(whole, 2, tmp_path / "cut")
    assert main(["run", str(cut)]) == 0, result(cut)["reason"]
    assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [2]
    name = "model/model" if settings.get("tuning") == "full" else "adapter/adapter_model"
    for file in (f"{name}.safetensors", f"{name.partition('/')[0]}/tokenizer_config.json"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes()
    assert result(cut)["metrics"] == result(whole)["metrics"]


def test_a_run_that_an_older_version_began_goes_on(small: Path, tmp_path: Path) -> None:
    config = asked("dpo", small, checkpoint_every=1, checkpoint_keep=0)
    whole = trained(tmp_path / "whole", config)
    cut = killed_after(whole, 2, tmp_path / "cut")
    path = cut / "attempts" / "inputs.json"
    inputs = json.loads(path.read_text(encoding="utf-8"))
    del inputs["config"]["tuning"], inputs["config"]["optim"]["optimizer"]
    for name in ("use_dora", "use_rslora"):
        del inputs["config"]["adapter"][name]
    path.write_text(json.dumps(inputs), encoding="utf-8")
    for folder in cut.glob("attempts/*/checkpoints/step-*"):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest["inputs_sha256"] = sha256_of_file(path)
        manifest["seal"] = seal(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["run", str(cut)]) == 0, result(cut)["reason"]
    assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [2]
    weights = "adapter/adapter_model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_digest_is_over_what_a_config_sets() -> None:
    config = from_dict({"method": "dpo", "base": {"source": "demo"}, "optim": {"lr": 1e-4}})
    text = '{"base":{"source":"demo"},"dpo":{},"method":"dpo","optim":{"lr":0.0001}}'
    assert config_digest(config) == hashlib.sha256(text.encode()).hexdigest()
    assert config_digest(from_dict(to_dict(config))) == config_digest(config)
    other = from_dict(to_dict(config) | {"seed": 1})
    assert config_digest(other) != config_digest(config)


# Optimizers -------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has memory to page")
@pytest.mark.parametrize("optimizer", ["paged_adamw", "paged_adamw_8bit"])
def test_a_paged_optimizer_is_refused_where_there_is_no_gpu(
    optimizer: str, small: Path, tmp_path: Path
) -> None:
    config = asked("dpo", small, optim={"optimizer": optimizer})
    folder = make_run(tmp_path / "run", config, train=PAIRS)
    assert main(["run", str(folder)]) == 1
    assert result(folder)["status"] == "refused"
    assert "allowed here: adamw, adamw_8bit" in result(folder)["reason"]


# Kinds of adapters, and switching them ----------------------------------------------------------


def test_a_dora_adapter_that_was_trained_here_says_the_same_in_stock_peft(
    small: Path, tmp_path: Path
) -> None:
    config = asked("sft", small, adapter={"use_dora": True}, optim={"lr": 2e-2, "epochs": 2})
    adapter = trained(tmp_path / "sft", config) / "adapter"
    saved = load_file(adapter / "adapter_model.safetensors")
    magnitudes = {name: t for name, t in saved.items() if name.endswith("lora_magnitude_vector")}
    assert len(magnitudes) == 4
    base = load_base(BaseConfig(source=str(small)))
    weights = dict(base.causal.named_parameters())
    for name, magnitude in magnitudes.items():
        layer = name.removeprefix("base_model.model.").removesuffix("lora_magnitude_vector")
        before = torch.linalg.norm(weights[f"{layer}weight"], dim=1)
        assert (magnitude - before).abs().max() > 1e-3  # it was trained
    assert ours(small, adapter) == pytest.approx(stock(small, adapter), abs=1e-4)


def test_the_scale_of_rslora_is_alpha_over_the_root_of_the_rank(base: Base) -> None:
    base.add_adapter("one", AdapterConfig(r=16, alpha=32))
    base.add_adapter("two", AdapterConfig(r=16, alpha=32, use_rslora=True))
    assert set(base.scaling("one")) == {2.0}
    assert set(base.scaling("two")) == {8.0}


def test_a_kind_that_the_saved_adapter_is_not_is_refused(tiny: Path, tmp_path: Path) -> None:
    plain = foreign(tmp_path / "adapter", tiny)
    base = load_base(BaseConfig(source=str(tiny)))
    with pytest.raises(BaseModelError, match=r"adapter\.use_dora is true"):
        base.add_adapter("policy", AdapterConfig(use_dora=True), init_from=str(plain))


def test_dora_on_int8_is_refused(tiny: Path) -> None:
    base = load_base(BaseConfig(source=str(tiny), quantization="int8"))
    with pytest.raises(BaseModelError, match="nf4 or none"):
        base.add_adapter("policy", AdapterConfig(use_dora=True))


def test_adapters_are_switched_without_a_trace_and_never_two_at_once(
    tiny: Path, base: Base
) -> None:
    kinds = {
        "plain": AdapterConfig(r=4),
        "dora": AdapterConfig(r=4, use_dora=True),
        "rslora": AdapterConfig(r=8, use_rslora=True, target_modules=("q_proj", "down_proj")),
    }
    torch.manual_seed(2)
    alone: dict[str | None, Tensor] = {}
    tree = tree_of(base, PAIRS[0])
    for name, config in kinds.items():
        base.add_adapter(name, config)
        with torch.no_grad():
            for parameter in base.parameters(name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        with base.use(name):
            alone[name] = response_logps(base, [tree], PACKING)
    separate = load_base(BaseConfig(source=str(tiny)))
    alone[None] = response_logps(separate, [tree], PACKING)
    assert len({round(each[0, 0].item(), 3) for each in alone.values()}) == 4

    base.train_only("dora")
    flags = {name: p.requires_grad for name, p in base.model.named_parameters()}
    assert any(flags.values())
    trained_ones = {name for name, flag in flags.items() if flag}
    assert trained_ones == {name for name in flags if ".dora." in name and ".lora_" in name}
    for name in ("rslora", None, "plain", "dora", None, "plain", "rslora", "dora"):
        with base.use(name):
            layers = [m for m in base.model.modules() if hasattr(m, "active_adapters")]
            layers = [m for m in layers if hasattr(m, "lora_A")]
            assert layers
            for layer in layers:
                assert layer.disable_adapters == (name is None)
                assert name is None or layer.active_adapters == [name]
            torch.testing.assert_close(
                response_logps(base, [tree], PACKING), alone[name], atol=0, rtol=0
            )
        assert {n: p.requires_grad for n, p in base.model.named_parameters()} == flags
    assert base.active is None


# Merging ----------------------------------------------------------------------------------------


def merged(out: Path, base: Path, adapter: Path, *more: str) -> dict[str, Any]:
    arguments = ["merge", "--base", str(base), "--adapter", str(adapter), "--out", str(out)]
    assert main([*arguments, *more]) == 0
    found: dict[str, Any] = json.loads((out / "merge.json").read_text(encoding="utf-8"))
    return found


def test_a_merged_policy_says_what_base_and_adapter_say(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = asked("dpo", small, adapter={"use_dora": True}, optim={"lr": 2e-2})
    adapter = trained(tmp_path / "dpo", config) / "adapter"
    capsys.readouterr()
    found = merged(tmp_path / "out", small, adapter)
    assert "warning:" not in capsys.readouterr().err
    assert (found["trained_on"], found["warnings"]) == ("none", [])
    ids = torch.arange(300, 340)[None]
    base = load_base(BaseConfig(source=str(small)))
    base.add_adapter("policy", AdapterConfig(), init_from=str(adapter))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad(), base.use("policy"):
        ours_ = base.causal(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=ids).logits, ours_, atol=1e-4, rtol=0)
    with torch.no_grad():
        assert (base.causal(input_ids=ids).logits - ours_).abs().max() > 1e-2
    assert load_base(BaseConfig(source=str(tmp_path / "out"))).tokenizer.chat_template
    again = ["merge", "--base", str(small), "--adapter", str(adapter)]
    assert main([*again, "--out", str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err


def test_merging_what_was_trained_on_4_bits_says_how_much_is_lost(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = asked("dpo", small, base={"quantization": "nf4"}, optim={"lr": 2e-2})
    adapter = trained(tmp_path / "dpo", config) / "adapter"
    capsys.readouterr()
    own = merged(tmp_path / "own", small, adapter)
    said = capsys.readouterr().err
    lost = own["differences"]["merged_vs_adapter_on_nf4"]["largest"]
    assert lost > 1e-2
    assert own["differences"]["merged_vs_adapter_on_the_same_weights"]["largest"] < 1e-4
    assert "full-precision weights; on a text the logits" in said
    assert f"up to {lost:.3g} apart" in said
    assert f"up to {lost:.3g} apart" in (tmp_path / "own" / "README.md").read_text(encoding="utf-8")

    four = merged(tmp_path / "four", small, adapter, "--quantization", "nf4")
    assert four["differences"]["merged_vs_adapter_on_nf4"]["largest"] < 1e-4
    assert "no longer on the 4-bit grid" in capsys.readouterr().err
    # outside its run folder nobody knows what it was trained on
    shutil.copytree(adapter, tmp_path / "alone")
    lone = merged(tmp_path / "lone", small, tmp_path / "alone")
    assert lone["trained_on"] == "unknown"
    assert lone["differences"] == own["differences"]
    assert "4 bits are assumed" in capsys.readouterr().err


def test_a_merged_reward_adapter_is_a_sequence_classifier(small: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "reward", asked("reward", small, optim={"lr": 2e-2}))
    found = merged(tmp_path / "out", small, folder / "adapter")
    assert (found["kind"], found["compared"]) == ("reward model", "scores")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    encoder = load_base(BaseConfig(source=str(small)))
    margins = []
    for row in HELD_OUT:
        tree = tree_of(encoder, row)
        with torch.no_grad():
            scores = [
                model(input_ids=torch.tensor([tree.prompt + branch.tokens])).logits.item()
                for branch in tree.branches
            ]
        margins.append(scores[0] - scores[1])
    assert result(folder)["metrics"]["reward/margin"] == pytest.approx(sum(margins) / 3, abs=1e-4)


def test_what_cannot_be_merged_leaves_nothing_behind(
    small: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = foreign(tmp_path / "adapter", tiny)
    out = tmp_path / "out"
    for adapter, words in ((other, "not made for this base"), (tmp_path / "none", "holds no")):
        arguments = ["merge", "--base", str(small), "--adapter", str(adapter), "--out", str(out)]
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


# Bases that could run code ----------------------------------------------------------------------


def test_code_beside_a_tokenizer_is_never_run(small: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(small, base)
    mark = tmp_path / "ran"
    (base / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BaseModelError, match="code of its own"):
        load_base(BaseConfig(source=str(base)))
    assert not mark.exists()
