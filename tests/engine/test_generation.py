"""Decoding: a row's text is its own, whoever it shares a batch with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from tests.engine.tiny import user
from training.engine import generation
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.data import prompt_tokens
from training.engine.generation import RoomyLayer, forward, generate, pick, row_seed
from training.engine.models import Base, load_base

#: Prompts of very different lengths, in no order.
ASKED = ["why? " * n for n in (5, 1, 14, 3, 2, 9, 1, 7)]
#: Cool enough for the tiny model to repeat itself.
COOL = 0.1


def prompts_of(base: Base) -> list[tuple[int, ...]]:
    return [prompt_tokens(base, user(text)) for text in ASKED]


def alone(
    base: Base, prompt: tuple[int, ...], seed: int, most: int, temperature: float
) -> list[int]:
    """The answer to one prompt with nothing but the model: every token sees a fresh pass."""
    generator = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    while len(tokens) < most and base.eos_id not in tokens:
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *tokens]])
            logits = base.causal(input_ids=ids, logits_to_keep=1).logits[:, -1].float()
        draw = torch.rand((), generator=generator)[None]
        tokens.append(int(pick(logits, draw, temperature=temperature, top_p=1.0)))
    return tokens


@pytest.mark.parametrize(("samples", "rows"), [(1, 4), (3, 6), (3, 2)])
def test_rows_that_take_the_places_of_others_say_what_they_say_alone(
    samples: int, rows: int, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.add_adapter("policy", AdapterConfig(r=4))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters("policy"):
            parameter.normal_(0.0, 0.1)
    prompts, joins = prompts_of(base), []
    with base.use("policy"):
        # an end of turn that comes up often enough, so that rows leave at different times
        base.eos_id = -1
        endless = generate(base, prompts, max_new_tokens=6, temperature=COOL, seed=5)
        ((base.eos_id, _),) = Counter(t for a in endless for t in a.tokens[1:-1]).most_common(1)
    monkeypatch.setattr(generation, "BATCH", rows)
    join = generation.Batch.join
    monkeypatch.setattr(
        generation.Batch, "join", lambda one, two: (joins.append(len(two.rows)), join(one, two))
    )
    with base.use("policy"):
        answers = generate(
            base, prompts, max_new_tokens=6, temperature=COOL, seed=5, samples_per_prompt=samples
        )
        assert [(a.prompt, a.sample) for a in answers] == [
            (prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)
        ]
        assert joins or rows < samples, "rows were never refilled"
        for answer in answers[:: 2 * samples - 1]:
            seed = row_seed(5, answer.prompt, answer.sample)
            own = alone(base, prompts[answer.prompt], seed, 6, COOL)
            assert list(answer.tokens) == own
            assert answer.finished == (own[-1] == base.eos_id)
    assert {a.finished for a in answers} == {True, False}


def test_the_cache_with_room_holds_what_the_stock_one_holds(base: Base) -> None:
    ids = torch.randint(5, 500, (3, 50), generator=torch.Generator().manual_seed(0))
    caches = (DynamicCache(), Cache(layer_class_to_replicate=RoomyLayer))
    for start, stop in ((0, 10), (10, 11), (11, 50)):
        seen = torch.ones(3, stop, dtype=torch.bool)
        positions = torch.arange(start, stop)[None].expand(3, -1)
        with torch.no_grad():
            stock, ours = (
                forward(base, ids[:, start:stop], seen, cache, positions) for cache in caches
            )
        torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)
    for one, two in zip(caches[0].layers, caches[1].layers, strict=True):
        torch.testing.assert_close(two.keys, one.keys, atol=1e-5, rtol=0)


def test_checkpointed_gradients_change_no_answer(tiny: Path) -> None:
    """In training, checkpointed layers drop the cache that they are given."""
    answers = []
    for on in (False, True):
        base = load_base(BaseConfig(source=str(tiny)), gradient_checkpointing=on)
        training = base.model.training
        answers.append(generate(base, prompts_of(base), max_new_tokens=8, temperature=1.0, seed=3))
        assert base.model.training == training
    assert answers[0] == answers[1]
