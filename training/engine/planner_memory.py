"""How many bytes each part of a run needs, from a base's shape and how it is held and trained.

Every formula is the size of a tensor that this code, PyTorch, PEFT or bitsandbytes makes; the
constants below are the same for every case, published or our own (docs/reference/memory-planner.md
lists each with its source). Bytes are exact where a count is; peaks are estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from training.engine.planner_shapes import BaseShape, Linear

GIB = 2**30
#: Values that share one scale in NF4, and scales that share one scale of theirs (double
#: quantization): Dettmers et al. 2023, arXiv 2305.14314, section 3. 4 + 32/64 = 4.5 bits a weight,
#: 4 + 8/64 + 32/(64 · 256) = 4.127.
NF4_BLOCK, NF4_OUTER_BLOCK = 64, 256
#: 8-bit moments share a scale in blocks of 256; tensors of fewer values than 4,096 stay in fp32:
#: Dettmers et al. 2022, arXiv 2110.02861, section 2, and bitsandbytes' `min_8bit_size`.
MOMENT_BLOCK, LEAST_8BIT = 256, 4096
#: Scored tokens that the head sees at once (`logprobs.CHUNK`).
CHUNK = 128
#: Rows that are decoded side by side, and tokens of room in their cache (`generation`).
DECODE_ROWS, DECODE_ROOM = 32, 32
#: Bytes per logit of a chunk: the logits in fp32, and logsumexp's copy of them.
CHUNK_BYTES = 8
#: Bytes per logit where a whole batch of logits is kept, beside the logits as they are computed:
#: log-softmax and gradient in fp32, and the fp32 copy of logits in 16 bits.
FULL_BYTES = 8
#: Bytes per logit of one decoding step: logits and probabilities in fp32, their sums in fp64.
DECODE_BYTES = 24
#: What allocators round up, keep and split, as a share of all the rest.
RUNTIME = 0.05

HELD = ("float32", "bfloat16", "int8", "nf4")
LOGITS = ("chunk", "full", "eighths", "none")


@dataclass(frozen=True)
class Term:
    """One part of the memory of a phase."""

    name: str
    bytes: int
    #: How it is counted, for people.
    how: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a base is held, and what of it is trained."""

    held: str = "float32"
    """The blocks' linear layers: float32, bfloat16, int8 or nf4."""
    double_quant: bool = True
    """Whether NF4's scales are quantized too."""
    other_bytes: int = 4
    """Bytes of a value of embeddings, head, norms and biases."""
    compute_bytes: int = 4
    """Bytes of an activation."""
    tuning: str = "lora"
    """lora, full, or none (nothing is trained)."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    r: int = 16
    dora: bool = False
    trained_adapters: int = 1
    frozen_adapters: int = 0
    adapter_bytes: int = 4
    """Bytes of an adapter's weight; PEFT trains adapters in fp32 on a 16-bit base too."""
    gradient_bytes: int = 4
    optimizer: str = "adamw"
    """One of `config.OPTIMIZERS`, or none."""
    moment_bytes: int = 4
    """Bytes of a value of one moment, where it is not 8-bit."""
    head_values: int = 0
    """Values of trained scalar heads (fp32)."""
    trains_head: bool = True
    """Under full tuning: whether the language-model head is trained too."""
    copies: int = 0
    """Copies of the trained weights that are kept to fall back to."""
    multi_tensor: bool = False
    """Whether AdamW's step takes all tensors at once, which needs a copy of their size."""
    lean: bool = False
    """Whether norms and gated units keep less (`lean_layers`), where the base's are among those."""
    gradient_in_backward: bool = False
    """Whether each gradient is used and dropped as soon as it is there (other trainers only)."""
    shards: int = 1
    """Devices over which weights, gradients and moments are split (other trainers only)."""

    @property
    def mixed(self) -> bool:
        """Weights in fp32 that are computed with in 16 bits."""
        return self.tuning == "full" and self.held == "float32" and self.compute_bytes == 2

    @property
    def quantized(self) -> bool:
        return self.held in ("int8", "nf4")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What goes through the model at once."""

    tokens: int
    """All tokens of a packed row, or of a padded batch."""
    length: int
    """Tokens of one row: attention is quadratic in it."""
    scored: int
    """Tokens whose log-probability is asked for."""
    masked: bool = True
    """Whether attention is given a mask of its own, as packed rows need."""
    checkpointing: bool = False
    logits: str = "chunk"
    """chunk: ours; full: kept for the whole batch; eighths: torchtune's chunked loss; none."""
    by_trees: bool = False
    """Whether attention goes tree by tree, in which heads share keys and values (`attention`)."""
    joined: int = 0
    """Tokens whose keys and values are copied: each branch with its prompt before it."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Answers that are written side by side."""

    rows: int
    prompt: int
    new_tokens: int
    dequantized: bool = False
    """Whether 4-bit layers are held dequantized meanwhile (`quantization.held_dequantized`)."""


def weight_bytes(shape: BaseShape, layout: Layout) -> int:
    """The base's weights as they are held, without quantization's scales."""
    per_value = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}[layout.held]
    others = shape.parameters - shape.linear
    return math.ceil(shape.linear * per_value) + others * layout.other_bytes


def constant_bytes(shape: BaseShape, layout: Layout) -> int:
    """Scales of quantized layers: per block (NF4), per output (int8)."""
    if layout.held == "int8":
        return shape.layers * sum(4 * layer.outputs for layer in shape.linears)
    if layout.held != "nf4":
        return 0
    blocks = shape.layers * sum(math.ceil(layer.weights / NF4_BLOCK) for layer in shape.linears)
    if not layout.double_quant:
        return 4 * blocks
    return blocks + 4 * math.ceil(blocks / NF4_OUTER_BLOCK)


def adapter_parameters(shape: BaseShape, layout: Layout) -> int:
    """Parameters of one adapter; 0 where there is none."""
    if layout.tuning == "full" or not layout.trained_adapters + layout.frozen_adapters:
        return 0
    return shape.adapter(layout.targets, layout.r, dora=layout.dora)


def trained_tensors(shape: BaseShape, layout: Layout) -> list[tuple[int, int]]:
    """(how many, values of each) of the trained tensors, scalar heads left out."""
    if layout.tuning == "full":
        outer = [shape.vocab * shape.hidden]
        outer += [shape.vocab * shape.hidden] if shape.head and layout.trains_head else []
        outer += [each for each in (shape.extra_embeddings, shape.pooler) if each]
        inner = [layer.weights for layer in shape.linears]
        inner += [layer.outputs for layer in shape.linears if layer.bias]
        small = shape.block_norms
        return [
            *((1, size) for size in outer),
            *((shape.layers, size) for size in inner),
            (shape.layers, small),
            (1, shape.outer_norms),
        ]
    if layout.tuning == "none" or not layout.trained_adapters:
        return []
    each = shape.layers * layout.trained_adapters
    found = []
    for layer in shape.targets(layout.targets):
        found += [(each, layout.r * layer.inputs), (each, layout.r * layer.outputs)]
        found += [(each, layer.outputs)] if layout.dora else []
    return found


def trained_parameters(shape: BaseShape, layout: Layout) -> int:
    """Everything that an optimizer step changes."""
    return sum(n * size for n, size in trained_tensors(shape, layout)) + layout.head_values


def moment_bytes(shape: BaseShape, layout: Layout) -> int:
    """Adam's two moments of everything that is trained, wherever they lie."""
    if layout.optimizer == "none":
        return 0
    eight = layout.optimizer.endswith("8bit")

    def of(size: int) -> int:
        if eight and size >= LEAST_8BIT:
            return 2 * (size + 4 * math.ceil(size / MOMENT_BLOCK))
        return 2 * size * (4 if eight else layout.moment_bytes)

    heads = 8 * layout.head_values
    return sum(n * of(size) for n, size in trained_tensors(shape, layout)) + heads


def resident(shape: BaseShape, layout: Layout) -> list[Term]:
    """What is held the whole time."""
    one = adapter_parameters(shape, layout)
    adapters = one * (layout.trained_adapters + layout.frozen_adapters) * layout.adapter_bytes
    trained = trained_parameters(shape, layout)
    terms = [
        Term("weights", weight_bytes(shape, layout) // layout.shards, held_as(shape, layout)),
        Term(
            "quantization constants",
            constant_bytes(shape, layout) // layout.shards,
            "scales of the quantized blocks",
        ),
        Term(
            "adapters",
            (adapters + 4 * layout.head_values) // layout.shards,
            f"{layout.trained_adapters} trained and {layout.frozen_adapters} frozen of {one:,} "
            f"parameters, and {layout.head_values:,} of heads",
        ),
        Term(
            "weights to fall back to",
            layout.copies * trained * 4,
            f"{layout.copies} copies of what is trained, for the alarms or a KL budget",
        ),
    ]
    if layout.shards > 1:
        terms.append(gathered(shape, layout))
    return terms


def held_as(shape: BaseShape, layout: Layout) -> str:
    others = {2: "bfloat16", 4: "float32"}[layout.other_bytes]
    return (
        f"{shape.linear:,} linear weights in {layout.held}, "
        f"{shape.parameters - shape.linear:,} others in {others}"
    )


def gathered(shape: BaseShape, layout: Layout) -> Term:
    """What a sharded trainer has whole at once: two blocks (one fetched ahead), and the largest
    embedding or head (FSDP: Zhao et al. 2023, arXiv 2304.11277)."""
    blocks = replace(shape, layers=2, vocab=1, extra_embeddings=0, pooler=0, tied=True)
    whole = weight_bytes(blocks, layout) + constant_bytes(blocks, layout)
    outer = shape.vocab * shape.hidden * layout.other_bytes
    return Term("gathered weights", whole + outer, "two blocks and one embedding, unsharded")


def gradient_term(shape: BaseShape, layout: Layout) -> Term:
    if layout.gradient_in_backward:
        largest = max((size for _, size in trained_tensors(shape, layout)), default=0)
        return Term("gradients", largest * layout.gradient_bytes, "the largest tensor's alone")
    trained = trained_parameters(shape, layout)
    return Term(
        "gradients",
        trained * layout.gradient_bytes // layout.shards,
        f"{trained:,} trained parameters of {layout.gradient_bytes} bytes",
    )


def optimizer_term(shape: BaseShape, layout: Layout) -> Term:
    if layout.optimizer.startswith("paged"):
        return Term("optimizer", 0, "moments paged to the processor's memory while room is short")
    size = moment_bytes(shape, layout) // layout.shards
    return Term("optimizer", size, f"{layout.optimizer}: two moments of each trained parameter")


def host_bytes(shape: BaseShape, layout: Layout) -> int:
    """What paged moments may take of the processor's memory."""
    return moment_bytes(shape, layout) if layout.optimizer.startswith("paged") else 0


def norm_bytes(shape: BaseShape, layout: Layout) -> int:
    """What the norms of one block keep per token.

    An RMS norm keeps its input in fp32 and one factor; a trained one the normalised input too, a
    lean one the input as it came.
    """
    residual = 4 if layout.mixed else layout.compute_bytes
    if not shape.decoder:
        return shape.norms * (shape.hidden * residual + 8)
    values, factors = shape.norms * shape.hidden, shape.norms
    if shape.qk_norm:
        values += shape.q_size + shape.kv_size
        factors += shape.heads + shape.kv_heads
    if layout.tuning == "full":
        return values * (4 + residual) + 4 * factors
    return values * (layout.compute_bytes if lean_norms(shape, layout) else 4) + 4 * factors


def lean_norms(shape: BaseShape, layout: Layout) -> bool:
    """Whether norms keep their input in its own type; those that are trained never do."""
    return layout.lean and shape.lean_norms and layout.tuning != "full"


def input_bytes(shape: BaseShape, layout: Layout) -> int:
    """What the linear layers of one block keep of their inputs per token.

    A trained weight needs its input; layers with the same input share it, and that of the output
    projection is the attention's output, which attention keeps anyway. LoRA's A needs it in the
    adapter's type (a copy for every layer where that is another), its B the r values between.
    bitsandbytes' int8 layers keep their input whether trained or not.
    """
    c = layout.compute_bytes
    sizes = {layer.source: layer.inputs for layer in shape.linears}
    kept: set[str] = set()
    copied = 0
    if layout.tuning == "full" or layout.held == "int8":
        kept |= set(sizes)
    if layout.mixed:
        # autocast casts the fp32 input of every layer anew; only weights' copies are shared
        cast = [layer for layer in shape.linears if layer.source in ("block", "feed-forward")]
        copied += sum(layer.inputs * c for layer in cast)
        kept -= {"block", "feed-forward"}
    if layout.tuning == "lora" and layout.trained_adapters:
        for layer in shape.targets(layout.targets):
            copied += layout.r * layout.adapter_bytes
            if layout.adapter_bytes == c:
                kept.add(layer.source)
            else:
                copied += layer.inputs * layout.adapter_bytes
    return copied + sum(sizes[source] * c for source in kept - {"attention"})


def block_bytes(shape: BaseShape, layout: Layout, work: Work) -> int:
    """What autograd keeps of one block for its backward pass.

    Counted tensor by tensor, by PyTorch's rule that a product keeps the factors whose partner needs
    a gradient; compared with what it really keeps in tests/engine/test_planner_activations.py.
    """
    c = layout.compute_bytes
    # a mask makes transformers repeat keys and values for every query head
    keys = shape.q_size if work.masked and not work.by_trees else shape.kv_size
    attention = (2 * shape.q_size + 2 * keys) * c + 4 * shape.heads
    # gate, up and the gate's SiLU, which a lean unit computes again
    parts = (2 if layout.lean and shape.lean_units else 3) if shape.decoder else 1
    feed_forward = parts * shape.intermediate * c
    per_token = norm_bytes(shape, layout) + attention + feed_forward + input_bytes(shape, layout)
    # on a processor a branch has keys and values of its own, its prompt before them (`attention`)
    return work.tokens * per_token + work.joined * 2 * shape.kv_size * c


def mask_bytes(layout: Layout, work: Work) -> int:
    """A packed row's mask, boolean and as the numbers that all blocks add to their scores."""
    return work.tokens * work.length * (1 + layout.compute_bytes) if work.masked else 0


def working_bytes(shape: BaseShape, layout: Layout, work: Work) -> int:
    """What one block has besides while it is passed: gradients of its widest part, a weight."""
    c = layout.compute_bytes
    wide = work.tokens * (3 * shape.intermediate + 2 * shape.hidden) * c
    return wide + dequantized_bytes(shape, layout) + dora_bytes(shape, layout)


def dequantized_bytes(shape: BaseShape, layout: Layout) -> int:
    """The one layer whose weights are dequantized at the moment."""
    widest = max(layer.weights for layer in shape.linears)
    return widest * layout.compute_bytes if layout.quantized else 0


def dora_bytes(shape: BaseShape, layout: Layout) -> int:
    """DoRA adds B·A to a layer's weights to take their norms: two copies in fp32."""
    if not layout.dora or layout.tuning != "lora":
        return 0
    return 8 * max(layer.weights for layer in shape.targets(layout.targets))


def pass_stages(shape: BaseShape, layout: Layout, work: Work) -> dict[str, list[Term]]:
    """A pass with gradient at its two worst moments.

    At the head all that autograd keeps is there, and the logits; they are gone by the time that the
    blocks are passed backwards, and one block's working memory is there instead (and, where blocks
    are recomputed, what autograd keeps of one: Chen et al. 2016, arXiv 1604.06174).
    """
    residual = 4 if layout.mixed else layout.compute_bytes
    one = block_bytes(shape, layout, work)
    outside = outside_bytes(shape, layout, work)
    if work.checkpointing:
        inputs = shape.layers * work.tokens * shape.hidden * residual
        head, blocks = inputs + outside, inputs + one + outside
        how = f"inputs of {shape.layers} blocks"
        inside = f"{how}, and one block's inside while it is recomputed"
    else:
        head = blocks = shape.layers * one + outside
        inside = how = f"{shape.layers} blocks of {one / work.tokens:,.0f} bytes a token"
    casts = cast_terms(shape, layout)
    return {
        "head": [
            Term("activations", head, f"{work.tokens:,} tokens; {how}"),
            *casts,
            logits_term(shape, layout, work),
        ],
        "blocks": [
            Term("activations", blocks, f"{work.tokens:,} tokens; {inside}"),
            *casts,
            Term(
                "working memory",
                working_bytes(shape, layout, work),
                "gradients and weights of the block at hand",
            ),
        ],
    }


def outside_bytes(shape: BaseShape, layout: Layout, work: Work) -> int:
    """What is kept outside the blocks: the last norm's input and output, the states of scored
    tokens with their gradient, the mask."""
    c = layout.compute_bytes
    norm_input = c if lean_norms(shape, layout) else 4
    states = work.tokens * shape.hidden * (norm_input + (4 if layout.mixed else c))
    return states + 2 * work.scored * shape.hidden * c + mask_bytes(layout, work)


def cast_terms(shape: BaseShape, layout: Layout) -> list[Term]:
    """Autocast's copies of fp32 weights, kept because the way back needs them."""
    if not layout.mixed:
        return []
    return [Term("16-bit copies", 2 * shape.linear, "of fp32 weights, while a pass runs")]


def logits_term(shape: BaseShape, layout: Layout, work: Work) -> Term:
    v, c = shape.vocab, layout.compute_bytes
    if work.logits == "none" or not work.scored:
        return Term("logits", 0, "none: a scalar head")
    if work.logits == "full":
        upcast = 4 if c == 2 else 0
        size = work.tokens * v * (c + upcast + FULL_BYTES)
        return Term("logits", size, f"of all {work.tokens:,} tokens, {v:,} words, kept")
    if work.logits == "eighths":
        size = work.tokens * v * c + math.ceil(work.tokens / 8) * v * 4
        return Term("logits", size, f"of all {work.tokens:,} tokens, an eighth at a time in fp32")
    size = min(CHUNK, work.scored) * v * CHUNK_BYTES
    how = f"of {min(CHUNK, work.scored)} tokens at a time, {v:,} words"
    if layout.tuning == "full" and layout.trains_head:
        size += v * shape.hidden * 4
        how += ", and a gradient of the head"
    return Term("logits", size, how)


def forward_terms(shape: BaseShape, layout: Layout, work: Work) -> list[Term]:
    """A pass without gradient: nothing is kept."""
    masks = mask_bytes(layout, work) + (work.tokens * work.length if work.masked else 0)
    states = work.tokens * shape.hidden * (4 + layout.compute_bytes)
    return [
        Term(
            "working memory",
            working_bytes(shape, layout, work) + masks + states,
            f"one block of {work.tokens:,} tokens",
        ),
        logits_term(shape, replace(layout, tuning="none"), work),
    ]


def decoding_terms(shape: BaseShape, layout: Layout, asked: Decoding) -> list[Term]:
    """Keys and values of the rows decoded side by side, their logits, and the prompts' own pass."""
    width = asked.prompt + asked.new_tokens + DECODE_ROOM
    prompts = Work(tokens=asked.rows * asked.prompt, length=asked.prompt, scored=0, logits="none")
    return [
        Term(
            "KV cache",
            asked.rows * width * shape.kv_bytes(layout.compute_bytes),
            f"{asked.rows} rows of {width:,} tokens, "
            f"{shape.kv_bytes(layout.compute_bytes):,} bytes a token",
        ),
        Term("logits", asked.rows * shape.vocab * DECODE_BYTES, "of the next token"),
        *forward_terms(shape, layout, prompts)[:1],
        Term(
            "dequantized weights",
            4 * shape.linear if asked.dequantized and layout.held == "nf4" else 0,
            "held while answers are written on a processor with room for them",
        ),
    ]


def step_terms(shape: BaseShape, layout: Layout) -> list[Term]:
    """AdamW's own step: one tensor's temporaries, or those of all."""
    sizes = [size for _, size in trained_tensors(shape, layout)]
    if layout.optimizer != "adamw" or not sizes:
        return []
    trained = trained_parameters(shape, layout)
    size = trained if layout.multi_tensor else max(sizes)
    return [Term("optimizer step", size * 4 // layout.shards, "square roots of second moments")]


def training_phases(
    shape: BaseShape, layout: Layout, work: Work, decoding: Decoding | None = None
) -> dict[str, list[Term]]:
    """The terms of each phase of a run that trains; its peak is the largest sum."""
    held, moments = resident(shape, layout), optimizer_term(shape, layout)
    gradients = gradient_term(shape, layout)
    phases = {
        f"pass: {stage}": [*held, gradients, moments, *terms]
        for stage, terms in pass_stages(shape, layout, work).items()
    }
    phases["step"] = [*held, gradients, moments, *step_terms(shape, layout)]
    if decoding is not None:
        phases["rollout"] = [*held, moments, *decoding_terms(shape, layout, decoding)]
        phases["scoring"] = [*held, moments, *forward_terms(shape, layout, work)]
    return phases


def with_runtime(terms: Iterable[Term]) -> list[Term]:
    """The terms that are not zero, and what allocators add."""
    kept = [term for term in terms if term.bytes]
    extra = round(RUNTIME * total(kept))
    return [*kept, Term("runtime", extra, f"{RUNTIME:.0%} for what allocators round and keep")]


def total(terms: Sequence[Term]) -> int:
    return sum(term.bytes for term in terms)


def peak(phases: dict[str, list[Term]]) -> tuple[str, list[Term]]:
    """The phase that needs most, with its terms."""
    name = max(phases, key=lambda each: total(phases[each]))
    return name, with_runtime(phases[name])


def bits_per_weight(layer: Linear, layout: Layout) -> float:
    """What a weight of a quantized layer takes, scales included."""
    blocks = math.ceil(layer.weights / NF4_BLOCK)
    scales = 4 * blocks
    if layout.double_quant:
        scales = blocks + 4 * math.ceil(blocks / NF4_OUTER_BLOCK)
    return 4 + 8 * scales / layer.weights
