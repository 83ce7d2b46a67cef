"""What a run will need before it is launched: memory by part, whether it fits, what would make it.

`plan(config, shape, device_bytes)` is what services call. Nothing is loaded and nothing downloaded:
the base is known by its config.json (`planner_shapes`), the parts by their formulas
(`planner_memory`), the time by counting operations (`planner_time`). Without the run's rows the
lengths of texts are taken at the bounds that its config sets; `Lengths` says them better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from training.engine.config import ONLINE_METHODS, TRL_METHODS, RunConfig, from_dict, to_dict
from training.engine.errors import BaseModelError, ConfigError
from training.engine.planner_changes import Kind, Settings, kinds
from training.engine.planner_memory import (
    DECODE_ROWS,
    Decoding,
    Layout,
    Term,
    Work,
    decoding_terms,
    forward_terms,
    host_bytes,
    peak,
    resident,
    total,
    trained_parameters,
    training_phases,
    with_runtime,
)
from training.engine.planner_shapes import BaseShape
from training.engine.planner_time import Estimate, estimate

#: Sections of a plan that names no adapters: they are as large as any, and never opened.
ANY_ADAPTERS = {
    **{method: {"reward_adapter": "reward"} for method in ONLINE_METHODS},
    "evaluate": {"reward_adapter": "reward", "policy_adapter": "policy"},
}


def any_section(method: str) -> dict[str, dict[str, str]]:
    """{method: its section}, where one cannot go without adapters; {} for the others."""
    return {method: dict(ANY_ADAPTERS[method])} if method in ANY_ADAPTERS else {}


DEVICES = ("gpu", "cpu")
BYTES = {"float32": 4, "bfloat16": 2}
#: Methods whose rows hold one text each.
ONE_TEXT = ("sft", "pretrain", "classify")
#: Prompts that `sample` answers are not counted by its config; one batch of rows is assumed.
SAMPLED_PROMPTS = DECODE_ROWS


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What is known of a run's rows, in tokens; None where only the config's bounds are known."""

    longest: int | None = None
    """Prompt and responses of the longest row together, its prompt counted once."""
    mean: float | None = None
    """The same on average, for the time."""
    prompt: int | None = None
    """The longest prompt."""
    row: int | None = None
    """The longest packed row, where the rows have been packed."""
    rows: int | None = None
    """Training rows, or prompts."""


@dataclass(frozen=True)
class Change:
    """Settings that were tried in place of the run's own, and what it would need with them."""

    settings: dict[str, Any]
    total_bytes: int
    fits: bool
    #: What the settings do to the run, kind by kind.
    why: list[str]
    #: Whether the run comes out the same, to rounding; it only takes longer.
    same_result: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer. Bytes of the device (the processor's memory where that is the device)."""

    method: str
    device: str
    parameters: int
    trained: int
    tokens: int
    """Tokens that go through the model at once."""
    phase: str
    """Which phase needs most; `terms` are its parts."""
    terms: list[Term]
    phases: dict[str, int]
    """Bytes of every phase."""
    total_bytes: int
    host_bytes: int
    """What paged moments may take of the processor's memory besides."""
    device_bytes: int | None
    fits: bool | None
    """None where no device was given."""
    change: Change | None
    """The smallest change that makes it fit, where it does not."""
    tried: list[Change] = field(default_factory=list)
    """Every change that was tried on the way, in order."""
    time: Estimate
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for the command line and the API."""
        return {
            "method": self.method,
            "device": self.device,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "tokens_at_once": self.tokens,
            "phase": self.phase,
            "terms": [term.as_json() for term in self.terms],
            "phases": self.phases,
            "total_bytes": self.total_bytes,
            "host_bytes": self.host_bytes,
            "device_bytes": self.device_bytes,
            "fits": self.fits,
            "change": self.change.as_json() if self.change else None,
            "tried": [change.as_json() for change in self.tried],
            "time": self.time.as_json(),
            "notes": self.notes,
        }


def plan(
    config: RunConfig,
    shape: BaseShape,
    device_bytes: int | None,
    *,
    lengths: Lengths | None = None,
    device: str = "gpu",
    flops_per_s: float | None = None,
    bytes_per_s: float | None = None,
    factor: float = 1.0,
) -> Plan:
    """The memory and time of a run.

    factor: what earlier runs of this method really took on such a device, of what was planned;
    every part is multiplied by it.

    device_bytes: memory of the device, or None to only count. On a processor: what is free for the
    run above its imported libraries. flops_per_s, bytes_per_s: what the device really does in
    multiply-adds (two operations each) and in reading weights, for the time.
    Raises BaseModelError where the method cannot train this base.
    """
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}; allowed: {', '.join(DEVICES)}")
    if config.method == "answer":
        raise ConfigError(
            "answer is not planned: plan a sample run of the same base, data.max_prompt_length and "
            "max_new_tokens, which decodes as it does"
        )
    if config.method == "compare":
        raise ConfigError("compare is not planned as a whole: plan its stages, sft and pretrain")
    known = lengths or Lengths()
    expect_trainable(config, shape)
    if config.method == "classify" and shape.family == "roberta":
        shape = replace(shape, pooler=0)  # its head reads the states themselves
    phases = phases_of(config, shape, known, device)
    name, parts = peak(phases)
    terms = [replace(term, bytes=round(factor * term.bytes)) for term in parts]
    needed = total(terms)
    fits = None if device_bytes is None else needed <= device_bytes
    change: Change | None = None
    tried: list[Change] = []
    if device_bytes is not None and not fits:
        change, tried = smallest_change(config, shape, known, device, device_bytes, factor)
    layout, work = layout_of(config, shape, device), work_of(config, shape, known)
    return Plan(
        method=config.method,
        device=device,
        parameters=shape.parameters,
        trained=trained_parameters(shape, layout),
        tokens=work.tokens,
        phase=name,
        terms=terms,
        phases={
            each: needed if each == name else round(factor * total(with_runtime(parts)))
            for each, parts in phases.items()
        },
        total_bytes=needed,
        host_bytes=host_bytes(shape, layout),
        device_bytes=device_bytes,
        fits=fits,
        change=change,
        tried=tried,
        time=estimate(
            config,
            shape,
            tokens_per_row=known.mean or tree_bound(config, shape, known),
            # a mask hides tokens from each other, and does not spare their products
            context=work.length if work.masked else work.length / 2,
            rows=known.rows,
            flops_per_s=flops_per_s,
            bytes_per_s=bytes_per_s,
            weights_bytes=resident(shape, layout)[0].bytes,
        ),
        notes=notes(config, shape, known),
    )


def expect_trainable(config: RunConfig, shape: BaseShape) -> None:
    """Raise BaseModelError for an encoder where text has to be written or continued."""
    writes = ("sft", "pretrain", "dpo", "kto", "orpo", "sample", *ONLINE_METHODS)
    if not shape.decoder and config.method in writes:
        raise BaseModelError(
            f"{config.method} needs a base that writes text, and {shape.family} is an encoder"
        )
    if config.tuning != "full" and config.method not in ("evaluate", "sample"):
        shape.targets(config.adapter.target_modules)


def layout_of(config: RunConfig, shape: BaseShape, device: str) -> Layout:
    """How the engine holds and trains what the config asks for (`models`, `tuning`)."""
    dtype = BYTES[config.base.dtype]
    full = config.tuning == "full"
    idle = config.method in ("evaluate", "sample")
    quantized = config.base.quantization != "none"
    held = config.base.quantization if quantized else config.base.dtype
    return Layout(
        # fully trained weights are fp32 whatever they are computed with
        held="float32" if full else held,
        double_quant=config.base.double_quant,
        other_bytes=4 if full else dtype,
        compute_bytes=dtype,
        tuning="full" if full else "lora",
        targets=config.adapter.target_modules,
        r=config.adapter.r,
        dora=config.adapter.use_dora,
        trained_adapters=0 if full or idle else 1 + int(has_value_adapter(config)),
        frozen_adapters=frozen_adapters(config),
        optimizer="none" if idle else config.optim.optimizer,
        head_values=head_values(config, shape),
        trains_head=config.method not in ("reward", "classify"),
        copies=3 * int(config.alarms.may_stop)
        + int(config.ppo is not None and config.ppo.kl_budget is not None),
        multi_tensor=device == "gpu",
        lean=True,
    )


def has_value_adapter(config: RunConfig) -> bool:
    return config.ppo is not None and config.ppo.value == "own_adapter"


def frozen_adapters(config: RunConfig) -> int:
    """Adapters that are held beside what is trained: references, reward, those evaluated."""
    if config.evaluate is not None:
        asked = config.evaluate
        given = (asked.reward_adapter, asked.policy_adapter, asked.reference_adapter)
        return sum(name is not None for name in given)
    start = config.adapter.init_from is not None
    if config.method in ("sft", "pretrain", "classify", "reward", "orpo"):
        return 0
    if config.method in ("dpo", "sample"):
        return int(start)
    if config.ppo is not None:
        return int(start) + int(config.ppo.reward_adapter is not None)
    # TRL keeps a frozen copy of the start as the reference; GRPO and RLOO are scored by an adapter
    return 1 + int(config.method in ("grpo", "rloo"))


def head_values(config: RunConfig, shape: BaseShape) -> int:
    """Values of trained heads; an encoder's has biases, and RoBERTa's and DistilBERT's a layer
    before it."""
    if config.reward is not None:
        return config.reward.ensemble * shape.hidden
    if config.classify is not None:
        classes = max(2, len(config.classify.labels))
        if shape.decoder:
            return classes * shape.hidden
        before = 0 if shape.family == "bert" else shape.hidden * (shape.hidden + 1)
        return before + classes * (shape.hidden + 1)
    return shape.hidden if config.method == "ppo" else 0


def text_bound(config: RunConfig, shape: BaseShape) -> int:
    """Tokens that prompt and one response may have together."""
    return min(config.data.max_length, shape.positions or config.data.max_length)


def prompt_bound(config: RunConfig, shape: BaseShape, known: Lengths) -> int:
    return known.prompt or min(config.data.max_prompt_length, text_bound(config, shape))


def tree_bound(config: RunConfig, shape: BaseShape, known: Lengths) -> int:
    """Tokens of the longest row: a prompt once, and all the responses that share it."""
    if known.longest is not None:
        return known.longest
    prompt = prompt_bound(config, shape, known)
    if config.ppo is not None:
        return prompt + config.ppo.samples_per_prompt * config.ppo.max_new_tokens
    online = config.grpo or config.rloo
    if online is not None:
        return prompt + online.max_new_tokens
    if config.sample is not None:
        return prompt + config.sample.max_new_tokens
    text = text_bound(config, shape)
    # two responses are longest together behind the shortest prompt
    return text if config.method in ONE_TEXT else 2 * text


def work_of(config: RunConfig, shape: BaseShape, known: Lengths) -> Work:
    """What goes through the model at once, with gradient where the method trains."""
    ckpt = config.gradient_checkpointing
    tree = tree_bound(config, shape, known)
    text = text_bound(config, shape)
    online = config.grpo or config.rloo
    if online is not None:
        rows = online.minibatch_size
        answer = online.max_new_tokens
        return Work(tokens=rows * tree, length=tree, scored=rows * answer, checkpointing=ckpt)
    if config.method in ("kto", "orpo"):
        # TRL takes a batch whole, each row padded to the longest
        rows = config.optim.batch_size * (2 if config.method == "orpo" else 1)
        length = min(text, tree)
        logits = "full" if config.method == "orpo" else "chunk"
        return Work(
            tokens=rows * length,
            length=length,
            scored=rows * length,
            checkpointing=ckpt,
            logits=logits,
        )
    trees = config.optim.batch_size
    if config.ppo is not None:
        trees = config.ppo.minibatch_size // config.ppo.samples_per_prompt
    tokens = known.row or max(tree, min(config.row_budget, trees * tree))
    scored = tokens
    if config.ppo is not None:
        scored = min(tokens, config.ppo.minibatch_size * config.ppo.max_new_tokens)
    headed = config.method in ("reward", "classify")  # no word is asked for
    return Work(
        tokens=tokens,
        # an encoder reads texts padded side by side, each attending to itself alone
        length=tokens if shape.decoder else tree,
        scored=0 if headed else scored,
        # a text alone in its row is read under plain causal attention
        masked=not (config.method in ONE_TEXT and trees == 1),
        checkpointing=ckpt,
        logits="none" if headed else "chunk",
    )


def joined_tokens(config: RunConfig, shape: BaseShape, known: Lengths, tokens: int) -> int:
    """Tokens of a row's branches, each with its prompt before it; 0 where prompts have one."""
    branches = 2 if config.method in ("reward", "dpo") else 1
    if config.ppo is not None:
        branches = config.ppo.samples_per_prompt
    if branches == 1 or not shape.decoder:
        return 0
    tree = tree_bound(config, shape, known)
    # two responses are longest together behind the shortest prompt
    prompt = min(prompt_bound(config, shape, known), tree) if known.prompt or config.ppo else 0
    return tokens + (branches - 1) * prompt * tokens // tree


def decoding_of(
    config: RunConfig, shape: BaseShape, known: Lengths, device: str
) -> Decoding | None:
    """The answers that the method writes at once; None where it writes none."""
    prompt = prompt_bound(config, shape, known)
    if config.ppo is not None:
        rows = max(config.ppo.episodes_per_update, config.ppo.eval_prompts)
        new = config.ppo.max_new_tokens
    elif (online := config.grpo or config.rloo) is not None:
        # the measurement answers each prompt as often as an update does
        rows = max(online.answers_per_update, online.eval_prompts * online.samples_per_prompt)
        new = online.max_new_tokens
    elif config.evaluate is not None and config.evaluate.generate:
        rows, new = config.evaluate.generate, config.evaluate.max_new_tokens
    elif config.sample is not None:
        rows = (known.rows or SAMPLED_PROMPTS) * config.sample.samples_per_prompt
        new = config.sample.max_new_tokens
    else:
        return None
    return Decoding(
        rows=min(rows, DECODE_ROWS), prompt=prompt, new_tokens=new, dequantized=device == "cpu"
    )


#: Above what is counted, runs on a processor hold 60 to 240 MB once they work (`planner_own`, and
#: docs/reference/memory-planner.md), whatever their rows; a base of a few kilobytes 24.
KERNELS = Term("kernels", 160 * 2**20, "what kernels, threads and the allocator keep, as measured")


def phases_of(
    config: RunConfig, shape: BaseShape, known: Lengths, device: str
) -> dict[str, list[Term]]:
    """The terms of every phase of the run."""
    layout = layout_of(config, shape, device)
    work, decoding = work_of(config, shape, known), decoding_of(config, shape, known, device)
    if device == "cpu":
        joined = joined_tokens(config, shape, known, work.tokens)
        # TRL's own passes know no trees
        by_trees = config.method not in TRL_METHODS
        work = replace(work, by_trees=by_trees, joined=joined)
    held = resident(shape, layout)
    phases: dict[str, list[Term]]
    if config.method in ("evaluate", "sample"):
        phases = {}
        if config.method == "evaluate":
            phases["scoring"] = [*held, *forward_terms(shape, layout, work)]
        if decoding is not None:
            phases["answers"] = [*held, *decoding_terms(shape, layout, decoding)]
    else:
        phases = training_phases(shape, layout, work, decoding)
        if config.method in (*ONE_TEXT, "reward", "dpo", "ppo") and shape.decoder:
            # two longest rows packed together, to prove that packing is right (`preflight`)
            both = 2 * tree_bound(config, shape, known)
            proof = replace(work, tokens=both, length=both, masked=True)
            phases["packing proof"] = [*held, *forward_terms(shape, layout, proof)]
    if device == "cpu":
        phases = {name: [*parts, KERNELS] for name, parts in phases.items()}
        phases["loading"] = loading_terms(config, shape, layout, held)
    return phases


def loading_terms(
    config: RunConfig, shape: BaseShape, layout: Layout, held: list[Term]
) -> list[Term]:
    """On a processor the file's pages count until the weights are held in another form."""
    same = not layout.quantized and BYTES[layout.held] == shape.stored_bytes
    file = 0 if same else shape.parameters * shape.stored_bytes
    return [*held[:2], Term("file", file, "the stored weights, while they are converted")]


def notes(config: RunConfig, shape: BaseShape, known: Lengths) -> list[str]:
    """What the numbers leave out, for whoever reads them."""
    found = []
    if known.longest is None and known.row is None:
        found.append(
            "the rows were not read: texts are taken as long as data.max_length and "
            "data.max_prompt_length allow"
        )
    if config.classify is not None and not config.classify.labels:
        found.append("classify.labels is not given: a head for two classes is counted")
    if config.ppo is not None and config.ppo.reward_model is not None:
        found.append(
            f"ppo.reward_model {config.ppo.reward_model} is held besides, and is not counted"
        )
    if config.adapter.init_from is not None or (config.ppo and config.ppo.reward_adapter):
        found.append("saved adapters are counted with this run's own rank and layers")
    if config.optim.optimizer.startswith("paged"):
        found.append("paged moments are counted as the processor's memory, not the device's")
    if shape.family == "mistral":
        found.append("where a sliding window is at work the run uses plain rows, which need less")
    return found


def changed(config: RunConfig, settings: Settings) -> RunConfig | None:
    """The config with these settings; None where they cannot be together."""
    try:
        return from_dict(with_settings(to_dict(config), settings))
    except ConfigError:
        return None


@dataclass(frozen=True)
class Part:
    """One value of a kind of change."""

    kind: Kind
    settings: Settings


def smallest_change(
    config: RunConfig,
    shape: BaseShape,
    known: Lengths,
    device: str,
    device_bytes: int,
    factor: float = 1.0,
) -> tuple[Change | None, list[Change]]:
    """(the smallest change that makes the run fit, or None; all that were tried).

    One setting is changed where that suffices, the gentlest kind first and of it the mildest value.
    Otherwise kinds are added up in that order, each at its strongest value, until the run fits;
    then every kind that turns out not to be needed is taken back.
    """

    def try_out(parts: Sequence[Part]) -> Change | None:
        settings = merged([part.settings for part in parts])
        asked = changed(config, settings)
        if asked is None:
            return None
        try:
            # a length that was measured is cut where the texts are
            lengths = shortened(known, asked, settings)
            needed = round(factor * total(peak(phases_of(asked, shape, lengths, device))[1]))
        except BaseModelError:
            return None
        return Change(
            settings,
            needed,
            needed <= device_bytes,
            [part.kind.why for part in parts],
            all(part.kind.same_result for part in parts),
        )

    tried: list[Change] = []
    strongest: list[Part] = []
    for kind in kinds(config, device):
        possible = [Part(kind, value) for value in kind.values]
        found = [(part, change) for part in possible if (change := try_out([part])) is not None]
        for _, change in found:
            tried.append(change)
            if change.fits:
                return change, tried
        if found:
            strongest.append(found[-1][0])
    kept: list[Part] = []
    for part in strongest:
        kept.append(part)
        change = try_out(kept)
        if change is None:
            kept.pop()
            continue
        tried.append(change)
        if change.fits:
            return without_needless(kept, change, try_out), tried
    return None, tried


def shortened(known: Lengths, asked: RunConfig, settings: Settings) -> Lengths:
    """What is known of the rows after settings that cut them or pack them anew."""
    cut = [name for name in settings if name.startswith("data.") or "max_new" in name]
    if cut:
        return Lengths(rows=known.rows)
    if "row_budget" in settings and known.row is not None:
        longest = known.longest or known.row
        row = max(longest, min(known.row, asked.row_budget))
        return replace(known, row=row)
    return known


def merged(parts: list[Settings]) -> Settings:
    return {name: value for part in parts for name, value in part.items()}


def without_needless(
    kept: list[Part], fitting: Change, try_out: Callable[[Sequence[Part]], Change | None]
) -> Change:
    """The combination without the parts that it fits without, the harshest dropped first."""
    best = fitting
    for part in reversed(kept[:-1]):
        rest = [other for other in kept if other is not part]
        change = try_out(rest)
        if change is not None and change.fits:
            kept, best = rest, change
    return best


def with_settings(data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's JSON config with dotted settings laid over it."""
    found: dict[str, Any] = dict(data)
    for name, value in settings.items():
        *parents, last = name.split(".")
        place = found
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[parent]
        place[last] = value
    return found
