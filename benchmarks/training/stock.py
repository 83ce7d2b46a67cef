"""The other side of each row: stock TRL or transformers, timed around `train()` or `generate`.

Rows are handed over as the tokens that the engine made of them, so that both sides see the same.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from benchmarks.training import data, settings
from training.engine.sources import locate

#: Where TRL 1.12, the last with PPO, is unpacked: beside the locked TRL, seen by its side alone.
TRL_112 = data.ROOT / "var" / "bench" / "trl-1.12"


def tokenizer_and_source() -> tuple[PreTrainedTokenizerBase, str]:
    torch.set_num_threads(settings.THREADS)
    source = str(locate("demo"))
    return AutoTokenizer.from_pretrained(source), source


def lora(task: str = "CAUSAL_LM") -> LoraConfig:
    return LoraConfig(
        task_type=task,
        r=settings.RANK,
        lora_alpha=settings.ALPHA,
        target_modules=settings.TARGETS,
    )


def arguments(folder: Path, batch: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "num_train_epochs": 1,
        "learning_rate": settings.LR,
        "max_length": settings.MAX_LENGTH,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }


def timed(trainer: Any) -> float:
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def answer_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """An answer as the engine encodes it: what spells a special token stays text; then the end."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return [*encoded["input_ids"], tokenizer.eos_token_id]


def whole_ids(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]
) -> list[dict[str, list[int]]]:
    """Prompt and answer as one row of tokens, of chosen and of rejected, cut at MAX_LENGTH."""
    whole = []
    for row in rows:
        prompt = tokenizer(prompt_text(tokenizer, row["prompt"]), add_special_tokens=False)
        both = {
            f"{side}_ids": (prompt["input_ids"] + answer_ids(tokenizer, row[side][0]["content"]))[
                : settings.MAX_LENGTH
            ]
            for side in ("chosen", "rejected")
        }
        whole.append(both)
    return whole


def dpo(
    folder: Path,
    *,
    batch: int,
    pairs: int = data.PAIRS,
    file: str = "hh",
    tuned: bool = False,
) -> dict[str, Any]:
    from trl import DPOConfig, DPOTrainer

    tokenizer, source = tokenizer_and_source()
    rows = data.preference_rows(file, pairs)
    # Text rather than messages: TRL would end a message with the template's newline after the
    # end-of-turn token, and both sides must see the same tokens.
    texts = [
        {
            "prompt": prompt_text(tokenizer, row["prompt"]),
            "chosen": row["chosen"][0]["content"],
            "rejected": row["rejected"][0]["content"],
        }
        for row in rows
    ]
    extra: dict[str, Any] = {}
    if tuned:
        extra = {
            "precompute_ref_log_probs": True,
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "tokens",
            "remove_unused_columns": False,
        }
    started = time.perf_counter()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        args=DPOConfig(beta=settings.BETA, **arguments(folder, batch), **extra),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(texts),
        peft_config=lora(),
    )
    if tuned:
        lengths = [
            len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            for row in trainer.train_dataset
        ]
        trainer.train_dataset = trainer.train_dataset.add_column("tokens", lengths)
    precomputing = time.perf_counter() - started if tuned else 0.0
    logps: list[float] = []
    tokens: list[list[int]] = []
    if not tuned:
        encoded = list(trainer.train_dataset)[: settings.COMPARED]
        for first in range(0, len(encoded), batch):
            part = encoded[first : first + batch]
            both = trainer.compute_ref_log_probs(trainer.model, trainer.data_collator(part))
            logps += torch.stack(both, dim=1).flatten().tolist()
            tokens += [
                row["prompt_ids"] + row[side]
                for row in part
                for side in ("chosen_ids", "rejected_ids")
            ]
    return {
        "amount": len(rows),
        "seconds": timed(trainer) + precomputing,
        "compared": logps,
        "tokens": tokens,
    }


def scored_model(source: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A sequence classifier with the head that the engine's side scores with."""
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, dtype=torch.float32
    )
    # SmolLM2 pads with the token that ends a turn, so pooling would stop before it.
    model.config.pad_token_id = tokenizer.unk_token_id
    generator = torch.Generator().manual_seed(settings.HEAD_SEED)
    with torch.no_grad():
        model.score.weight.normal_(0.0, settings.HEAD_STD, generator=generator)
    return model


def reward(folder: Path) -> dict[str, Any]:
    from trl import RewardConfig, RewardTrainer

    tokenizer, source = tokenizer_and_source()
    whole = whole_ids(tokenizer, data.preference_rows())
    model = scored_model(source, tokenizer)
    compared = whole[: settings.COMPARED]
    tokens = [row[side] for row in compared for side in ("chosen_ids", "rejected_ids")]
    with torch.no_grad():
        scores = [float(model(input_ids=torch.tensor([ids])).logits) for ids in tokens]
    tokenizer.pad_token = tokenizer.unk_token
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**arguments(folder, 4)),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(whole),
        peft_config=lora("SEQ_CLS"),
    )
    return {
        "amount": len(whole),
        "seconds": timed(trainer),
        "compared": scores,
        "tokens": tokens,
    }


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> dict[str, list[int]]:
    """Tokens of a conversation, and as labels those that the assistant says, -100 elsewhere."""
    ids: list[int] = []
    labels: list[int] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        context = tokenizer(prompt_text(tokenizer, messages[:index]), add_special_tokens=False)
        between = context["input_ids"][len(ids) :]
        answer = answer_ids(tokenizer, message["content"])
        ids += between + answer
        labels += [-100] * len(between) + answer
    return {"input_ids": ids[: settings.MAX_LENGTH], "labels": labels[: settings.MAX_LENGTH]}


def sft(folder: Path) -> dict[str, Any]:
    from trl import SFTConfig, SFTTrainer

    tokenizer, source = tokenizer_and_source()
    rows = [conversation_ids(tokenizer, row["messages"]) for row in data.conversation_rows()]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    logps = []
    for row in rows[: settings.COMPARED]:
        ids, mask = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:]) >= 0
        with torch.no_grad():
            every = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        logps.append(float(every.gather(1, ids[0, 1:, None]).squeeze(1)[mask].mean()))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            dataset_kwargs={"skip_prepare_dataset": True},
            **arguments(folder, 4),
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=lora(),
    )
    return {
        "amount": sum(len(row["input_ids"]) for row in rows),
        "seconds": timed(trainer),
        "compared": logps,
        "tokens": [row["input_ids"] for row in rows[: settings.COMPARED]],
    }


def sampling(folder: Path) -> dict[str, Any]:
    """`generate` in batches in order of arrival, each as long as its longest answer."""
    tokenizer, source = tokenizer_and_source()
    tokenizer.padding_side = "left"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    torch.manual_seed(1)
    texts = [prompt_text(tokenizer, row["prompt"]) for row in data.prompt_rows(settings.PROMPTS)]
    lengths: list[int] = []
    started = time.perf_counter()
    for first in range(0, len(texts), settings.SAMPLING_BATCH):
        part = texts[first : first + settings.SAMPLING_BATCH]
        batch = tokenizer(part, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            output = model.generate(
                **batch,
                max_new_tokens=settings.NEW_TOKENS,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        for answer in output[:, batch["input_ids"].shape[1] :].tolist():
            ended = tokenizer.eos_token_id in answer
            lengths.append(answer.index(tokenizer.eos_token_id) + 1 if ended else len(answer))
    seconds = time.perf_counter() - started
    return {"amount": sum(lengths), "seconds": seconds, "lengths": lengths}


def install_trl_112() -> None:
    """TRL 1.12 into a folder of its own; everything under it stays as locked."""
    if not TRL_112.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(TRL_112), "trl==1.12.0"], check=True)


def ppo(folder: Path) -> dict[str, Any]:
    install_trl_112()
    sys.path.insert(0, str(TRL_112))
    import trl
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    assert trl.__version__ == "1.12.0", trl.__version__
    tokenizer, source = tokenizer_and_source()
    tokenizer.padding_side = "left"
    prompts = [
        {"input_ids": tokenizer(prompt_text(tokenizer, row["prompt"]))["input_ids"]}
        for row in data.prompt_rows(settings.EPISODES)
    ]
    shared = arguments(folder, settings.EPISODES_PER_UPDATE)
    shared.pop("max_length")
    shared["learning_rate"] = settings.LR
    trainer = PPOTrainer(
        args=PPOConfig(
            **shared,
            total_episodes=settings.EPISODES,
            num_mini_batches=1,
            num_ppo_epochs=settings.PPO_EPOCHS,
            local_rollout_forward_batch_size=settings.EPISODES_PER_UPDATE,
            num_sample_generations=0,
            response_length=settings.PPO_TOKENS,
            stop_token="eos",  # noqa: S106 - a token of text
            temperature=1.0,
            missing_eos_penalty=1.0,
        ),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        ref_model=None,
        reward_model=scored_model(source, tokenizer),
        value_model=scored_model(source, tokenizer),
        train_dataset=Dataset.from_list(prompts),
        eval_dataset=Dataset.from_list(prompts[:1]),
        peft_config=lora(),
    )
    return {"amount": settings.EPISODES, "seconds": timed(trainer)}


def start(folder: Path, *, warm: bool) -> dict[str, Any]:
    """The first time of the same engine stands on the other side of this row."""
    from benchmarks.training import ours

    return ours.start(folder, warm=warm)
