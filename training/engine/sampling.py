"""Method "sample": answers to prompts, for people to judge."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

from training.engine.data import encode_prompts
from training.engine.distributed import agree_to_stop
from training.engine.dpo import ADAPTER
from training.engine.errors import Interrupted
from training.engine.files import write_file
from training.engine.generation import generate, text_of
from training.engine.models import load_base
from training.engine.preflight import announce, seed_everything
from training.engine.rundir import RunDir
from training.engine.stopping import stop_requested

#: Prompts answered between two looks at the stop flag.
CHUNK = 8


def train(run: RunDir) -> dict[str, Any]:
    """Answer every prompt `samples_per_prompt` times; writes samples.jsonl. Returns the result."""
    config = run.config
    settings = config.sample
    assert settings is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base)
    adapter = config.adapter.init_from
    if adapter is not None:
        base.add_adapter(ADAPTER, config.adapter, init_from=adapter)
    asked = run.rows(config.data.prompts)
    prompts = encode_prompts(
        base, asked, config.data, run.events, max_new_tokens=settings.max_new_tokens
    )
    total = len(prompts) * settings.samples_per_prompt
    announce(run, base, total_steps=total, rows=len(prompts), trainable=0)

    run.events.write("phase", name="sample")
    rows: list[dict[str, Any]] = []
    tokens = finished = 0
    with base.use(ADAPTER) if adapter is not None else nullcontext():
        for start in range(0, len(prompts), CHUNK):
            agree_to_stop()
            if stop_requested.is_set():
                raise Interrupted("stopped; sampling starts again from the first prompt")
            chunk = prompts[start : start + CHUNK]
            answers = generate(
                base,
                [prompt.tokens for prompt in chunk],
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                samples_per_prompt=settings.samples_per_prompt,
                seed=config.seed * 1_000_003 + start,
            )
            for answer in answers:
                prompt = chunk[answer.prompt]
                row = {
                    "prompt_id": prompt.id,
                    "index": answer.sample,
                    "text": text_of(base, answer),
                    "finished": answer.finished,
                    "tokens": len(answer.tokens),
                    "seed": answer.seed,
                }
                rows.append(row)
                tokens += len(answer.tokens)
                finished += answer.finished
            first = rows[-len(answers)]
            run.events.write(
                "sample",
                step=len(rows),
                prompt_id=first["prompt_id"],
                prompt=chunk[0].messages,
                text=first["text"],
            )
            run.events.write("progress", step=len(rows), total_steps=total)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    samples = run.attempt_path / "samples.jsonl"
    write_file(samples, lines)
    metrics = {"length/mean": tokens / len(rows), "eos/rate": finished / len(rows)}
    run.events.metrics(len(rows), metrics)
    return {
        "steps": len(rows),
        "rows": len(prompts),
        "metrics": metrics,
        "samples": run.name_of(samples),
    }
