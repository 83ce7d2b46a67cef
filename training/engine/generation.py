"""One decoding loop for rollouts and samples.

The cache of a prompt is computed once and repeated for its samples. Prompts are taken by length, so
that those decoded together need little padding. Rows that have ended leave the batch, and waiting
prompts take their places while the others go on (continuous batching, Orca: Yu et al., OSDI 2022).
Each row draws from a generator of its own, seeded by (seed, prompt, sample), so its text does not
depend on which rows it is decoded with.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from training.engine.distributed import add_up, largest, share
from training.engine.models import Base
from training.engine.quantization import held_dequantized
from training.engine.stopping import raise_if_stopped

#: Rows decoded side by side.
BATCH = 32
#: Ended rows are dropped, and replaced, once they make up this share of the batch.
REFILL_AT = 0.25
#: Tokens that the cache makes room for at a time.
ROOM = 32


@dataclass(frozen=True)
class Generation:
    """One answer. `tokens` include the end-of-turn token where the model ended it (`finished`)."""

    prompt: int
    sample: int
    tokens: tuple[int, ...]
    finished: bool
    seed: int
    logps: tuple[float, ...] = ()
    """Of each token as it was drawn, at the sampling temperature, where they were asked for."""


def row_seed(seed: int, prompt: int, sample: int) -> int:
    """A seed below 2**63 for one row, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Row:
    """An answer in the making."""

    def __init__(self, prompt: int, sample: int, seed: int) -> None:
        self.prompt = prompt
        self.sample = sample
        self.seed = row_seed(seed, prompt, sample)
        self.tokens: list[int] = []
        self.logps: list[float] = []
        self.ended = False
        self._generator = torch.Generator().manual_seed(self.seed)

    def draw(self) -> float:
        return float(torch.rand((), generator=self._generator))


class RoomyLayer(DynamicLayer):
    """Keys and values in buffers with room for tokens to come.

    The stock layer concatenates, which copies the whole cache at every token: 12 % of the time of
    decoding 32 rows of SmolLM2-135M, as profiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rooms: list[Tensor | None] = [None, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """key_states, value_states: (B, heads, T, D) of new tokens. Returns: all of them"""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.keys, self.values
        assert keys is not None  # noqa: S101 - initialized above
        assert values is not None  # noqa: S101
        self.keys = self._appended(0, keys, key_states)
        self.values = self._appended(1, values, value_states)
        return self.keys, self.values

    def _appended(self, which: int, old: Tensor, new: Tensor) -> Tensor:
        room = self._rooms[which]
        length = old.shape[-2] if old.numel() else 0
        end = length + new.shape[-2]
        # a selection, a join or a cut from the left made `old` a tensor outside the buffer
        inside = room is not None and old.data_ptr() == room.data_ptr() and len(old) == len(room)
        if room is None or not inside or end > room.shape[-2]:
            room = new.new_empty(*new.shape[:2], end + ROOM, new.shape[3])
            if length:
                room[:, :, :length] = old
            self._rooms[which] = room
        room[:, :, length:end] = new
        return room[:, :, :end]


@dataclass
class Batch:
    """Rows decoded side by side; each stands at the right edge, masked to its left.

    seen: (B, W) bool, where a row has a token. position: (B,) of the next one. logits: (B, V)
    """

    rows: list[Row]
    cache: Cache
    seen: Tensor
    position: Tensor
    logits: Tensor

    def select(self, lines: Tensor) -> None:
        """Keep these lines, and no column that none of them uses."""
        self.rows = [self.rows[line] for line in lines.tolist()]
        self.position = self.position[lines]
        seen = self.seen[lines]
        first = int(seen.any(dim=0).int().argmax())
        self.seen = seen[:, first:]
        for layer in filled(self.cache):
            layer.keys, layer.values = (
                part[lines, :, first:].contiguous() for part in (layer.keys, layer.values)
            )

    def join(self, other: Batch) -> None:
        """Take another batch in; the narrower one is padded to its left."""
        width = max(self.seen.shape[1], other.seen.shape[1])
        self.rows = self.rows + other.rows
        self.position = torch.cat([self.position, other.position])
        self.logits = torch.cat([self.logits, other.logits])
        self.seen = torch.cat(
            [
                torch.nn.functional.pad(each.seen, (width - each.seen.shape[1], 0))
                for each in (self, other)
            ]
        )
        for own, new in zip(filled(self.cache), filled(other.cache), strict=True):
            own.keys = torch.cat([widened(own.keys, width), widened(new.keys, width)])
            own.values = torch.cat([widened(own.values, width), widened(new.values, width)])


def filled(cache: Cache) -> list[Any]:
    """The layers of a cache that hold anything (a layer may share another's)."""
    layers: list[Any] = list(cache.layers)
    return [layer for layer in layers if layer.is_initialized]


def widened(part: Tensor, width: int) -> Tensor:
    """part: (B, heads, W, D). Returns: (B, heads, width, D), zeros to the left"""
    return torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0))


@contextlib.contextmanager
def decoding(base: Base) -> Iterator[None]:
    """Within the block the model decodes: under gradient checkpointing, layers that are in training
    drop the cache that they were given, and each token would then see nothing but itself."""
    training = base.model.training
    base.model.eval()
    try:
        with held_dequantized(base.model):
            yield
    finally:
        base.model.train(training)


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
    keep_logps: bool = False,
) -> list[Generation]:
    """Answers to tokenised prompts under the active adapter, ordered by (prompt, sample).

    Temperature 0 takes the most probable token; nothing else than `top_p` cuts the distribution.
    keep_logps: note each token's log-prob before that cut, at a temperature above 0.
    """
    with decoding(base):
        done = answer_all(
            base,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            top_p=top_p,
            samples_per_prompt=samples_per_prompt,
            keep_logps=keep_logps,
        )
    own = [
        Generation(
            row.prompt,
            row.sample,
            tuple(row.tokens),
            row.tokens[-1] == base.eos_id,
            row.seed,
            tuple(row.logps),
        )
        for row in done
    ]
    return of_all_processes(own, len(prompts), samples_per_prompt)


def of_all_processes(
    own: Sequence[Generation], n_prompts: int, samples_per_prompt: int
) -> list[Generation]:
    """The answers of every process, each of which has answered its share of the prompts."""
    width = largest(max((len(answer.tokens) for answer in own), default=0))
    lines = n_prompts * samples_per_prompt
    tokens = torch.zeros(lines, width, dtype=torch.long)
    logps = torch.zeros(lines, width)
    # tokens, whether it finished, seed, log-probs
    facts = torch.zeros(lines, 4, dtype=torch.long)
    for answer in own:
        line = answer.prompt * samples_per_prompt + answer.sample
        tokens[line, : len(answer.tokens)] = torch.tensor(answer.tokens)
        logps[line, : len(answer.logps)] = torch.tensor(answer.logps)
        facts[line] = torch.tensor(
            [len(answer.tokens), answer.finished, answer.seed, len(answer.logps)]
        )
    add_up(tokens, logps, facts)
    return [
        Generation(
            *divmod(line, samples_per_prompt),
            tuple(row[:length]),
            bool(finished),
            seed,
            tuple(said[:noted]),
        )
        for line, (row, said, (length, finished, seed, noted)) in enumerate(
            zip(tokens.tolist(), logps.tolist(), facts.tolist(), strict=True)
        )
    ]


def answer_all(
    base: Base,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    top_p: float,
    samples_per_prompt: int,
    keep_logps: bool,
) -> list[Row]:
    """The rows of this process's share of the answers, in the order in which they ended."""
    own = share([len(prompt) + max_new_tokens for prompt in prompts])
    waiting = deque(sorted(own, key=lambda index: (len(prompts[index]), index)))
    capacity = max(BATCH, samples_per_prompt)
    batch: Batch | None = None
    done: list[Row] = []
    while waiting or batch is not None:
        raise_if_stopped()
        # 1. waiting prompts take the places that are free
        free = capacity - (len(batch.rows) if batch is not None else 0)
        enough = max(samples_per_prompt, REFILL_AT * capacity) if batch is not None else 1
        if waiting and free >= enough:
            several = min(free // samples_per_prompt, len(waiting))
            chosen = [waiting.popleft() for _ in range(several)]
            rows = [Row(i, sample, seed) for i in chosen for sample in range(samples_per_prompt)]
            fresh = begin(base, [prompts[index] for index in chosen], rows, samples_per_prompt)
            if batch is None:
                batch = fresh
            else:
                batch.join(fresh)
        assert batch is not None  # noqa: S101 - it was there, or has just been begun
        # 2. one token for every row
        draws = torch.tensor([row.draw() for row in batch.rows]).to(base.device)
        tokens = pick(batch.logits, draws, temperature=temperature, top_p=top_p)
        if keep_logps:
            logps = (batch.logits / temperature).log_softmax(dim=1).gather(1, tokens[:, None])
            for row, logp in zip(batch.rows, logps[:, 0].tolist(), strict=True):
                if not row.ended:
                    row.logps.append(logp)
        for row, token in zip(batch.rows, tokens.tolist(), strict=True):
            if not row.ended:
                row.tokens.append(token)
                row.ended = token == base.eos_id or len(row.tokens) == max_new_tokens
                if row.ended:
                    done.append(row)
        # 3. rows that have ended leave, and the others go on
        live = [line for line, row in enumerate(batch.rows) if not row.ended]
        if not live:
            batch = None
            continue
        if len(live) <= (1.0 - REFILL_AT) * len(batch.rows):
            lines = torch.tensor(live, device=base.device)
            tokens = tokens[lines]
            batch.select(lines)
        batch.seen = torch.cat([batch.seen, batch.seen.new_ones(len(batch.rows), 1)], dim=1)
        batch.logits = forward(
            base, tokens[:, None], batch.seen, batch.cache, batch.position[:, None]
        )
        batch.position = batch.position + 1
    return done


def begin(base: Base, prompts: Sequence[tuple[int, ...]], rows: list[Row], repeats: int) -> Batch:
    """A batch before its first token; row i answers prompt i // repeats."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=base.device)
    width = int(lengths.max())
    # Prompts stand at the right edge; what lies left of them is masked out by length, so the
    # token that fills it does not matter.
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=base.device)
    for line, prompt in enumerate(prompts):
        ids[line, width - len(prompt) :] = torch.tensor(prompt, device=base.device)
    seen = torch.arange(width, device=base.device)[None, :] >= (width - lengths)[:, None]
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    logits = forward(base, ids, seen, cache, (seen.cumsum(1) - 1).clamp_min(0))
    cache.batch_repeat_interleave(repeats)
    return Batch(
        rows=rows,
        cache=cache,
        seen=seen.repeat_interleave(repeats, dim=0),
        position=lengths.repeat_interleave(repeats),
        logits=logits.repeat_interleave(repeats, dim=0),
    )


def forward(base: Base, ids: Tensor, seen: Tensor, cache: Cache, positions: Tensor) -> Tensor:
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
