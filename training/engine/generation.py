"""One decoding loop for rollouts and samples.

The cache of a prompt is computed once and repeated for its samples; prompts of similar length are
decoded together; rows that have ended leave the batch. Each row draws from a generator of its own,
seeded by (seed, prompt, sample), so its text does not depend on which rows it is decoded with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from training.engine.models import Base
from training.engine.stopping import raise_if_stopped

#: Rows decoded side by side.
BATCH = 32
#: Ended rows are dropped once they make up this share of the batch.
COMPACT_AT = 0.25


@dataclass(frozen=True)
class Generation:
    """One answer. `tokens` include the end-of-turn token where the model ended it (`finished`)."""

    prompt: int
    sample: int
    tokens: tuple[int, ...]
    finished: bool
    seed: int


def row_seed(seed: int, prompt: int, sample: int) -> int:
    """A seed below 2**63 for one row, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def generate(
    base: Base,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    top_p: float = 1.0,
    samples_per_prompt: int = 1,
    done: Callable[[int], None] = lambda count: None,
) -> list[Generation]:
    """Answers to tokenised prompts under the active adapter, ordered by (prompt, sample).

    `done` is told how many answers exist after each batch. Temperature 0 takes the most probable
    token; nothing else than `top_p` cuts the distribution.
    """
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    per_batch = max(1, BATCH // samples_per_prompt)
    answers: list[Generation] = []
    for start in range(0, len(order), per_batch):
        chosen = order[start : start + per_batch]
        rows = [(index, sample) for index in chosen for sample in range(samples_per_prompt)]
        seeds = [row_seed(seed, index, sample) for index, sample in rows]
        texts = decode(
            base,
            [prompts[index] for index in chosen],
            seeds=seeds,
            repeats=samples_per_prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )
        for (index, sample), row, tokens in zip(rows, seeds, texts, strict=True):
            finished = bool(tokens) and tokens[-1] == base.eos_id
            answers.append(Generation(index, sample, tuple(tokens), finished, row))
        done(len(answers))
    return sorted(answers, key=lambda answer: (answer.prompt, answer.sample))


def decode(
    base: Base,
    prompts: Sequence[tuple[int, ...]],
    *,
    seeds: Sequence[int],
    repeats: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> list[list[int]]:
    """Decode one batch; row i of the result belongs to prompt i // repeats."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=base.device)
    width = int(lengths.max())
    # Prompts stand at the right edge; what lies left of them is masked out by length, so the
    # token that fills it does not matter.
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=base.device)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=base.device)
    seen = torch.arange(width, device=base.device)[None, :] >= (width - lengths)[:, None]
    cache = DynamicCache()
    logits = forward(base, ids, seen, cache, (seen.cumsum(1) - 1).clamp_min(0))

    cache.batch_repeat_interleave(repeats)
    logits = logits.repeat_interleave(repeats, dim=0)
    seen = seen.repeat_interleave(repeats, dim=0)
    position = lengths.repeat_interleave(repeats)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    texts: list[list[int]] = [[] for _ in seeds]
    live = list(range(len(seeds)))  # rows still in the batch
    ended: set[int] = set()
    for _ in range(max_new_tokens):
        raise_if_stopped()
        draws = torch.tensor([float(torch.rand((), generator=generators[row])) for row in live])
        tokens = pick(logits, draws.to(base.device), temperature=temperature, top_p=top_p)
        for row, token in zip(live, tokens.tolist(), strict=True):
            if row not in ended:
                texts[row].append(token)
                if token == base.eos_id or len(texts[row]) == max_new_tokens:
                    ended.add(row)
        if len(ended) == len(seeds):
            break
        keep = [place for place, row in enumerate(live) if row not in ended]
        if len(keep) <= (1.0 - COMPACT_AT) * len(live):
            kept = torch.tensor(keep, device=base.device)
            cache.batch_select_indices(kept)
            tokens, seen, position = tokens[kept], seen[kept], position[kept]
            live = [live[place] for place in keep]
        seen = torch.cat([seen, seen.new_ones(len(live), 1)], dim=1)
        logits = forward(base, tokens[:, None], seen, cache, position[:, None])
        position = position + 1
    return texts


def forward(
    base: Base, ids: Tensor, seen: Tensor, cache: DynamicCache, positions: Tensor
) -> Tensor:
    """Next-token logits in fp32, extending the cache. ids: (B, T). Returns: (B, V)"""
    output = base.causal(
        input_ids=ids,
        attention_mask=seen.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def pick(logits: Tensor, draws: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Tokens by inverse transform of one uniform draw a row. logits: (B, V), draws: (B,)"""
    if temperature == 0.0:
        return logits.argmax(dim=1)
    probabilities = torch.softmax(logits / temperature, dim=1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=1, descending=True)
        outside = ordered.cumsum(1) - ordered >= top_p  # the first token is always inside
        ordered = ordered.masked_fill(outside, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered)
    heights = probabilities.double().cumsum(1)
    targets = draws.double()[:, None] * heights[:, -1:]
    tokens = torch.searchsorted(heights, targets, right=True).squeeze(1)
    return tokens.clamp_max(logits.shape[1] - 1)


def text_of(base: Base, answer: Generation) -> str:
    """The answer as text, without the token that ended it."""
    tokens = answer.tokens[:-1] if answer.finished else answer.tokens
    return str(base.tokenizer.decode(list(tokens), skip_special_tokens=True))
