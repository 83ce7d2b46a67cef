"""The planner against every number that was published or measured, with one set of constants.

`exact` rows follow from a shape by counting, and have to agree to the last printed digit; `peak`
rows are what somebody saw or estimated on a device, and count as misses beyond 25 %; `own` rows are
our own runs on a processor, and have to agree within 20 % unless a remark says what is known of the
miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.engine.config import from_dict
from training.engine.planner import plan
from training.engine.planner_memory import (
    GIB,
    RUNTIME,
    Layout,
    Work,
    bits_per_weight,
    constant_bytes,
    gradient_term,
    moment_bytes,
    peak,
    resident,
    total,
    training_phases,
    weight_bytes,
    with_runtime,
)
from training.engine.planner_own import MACHINE, MEASURED
from training.engine.planner_shapes import BaseShape, Linear, packaged_shape, shape_of

#: How far a peak may be off before it counts as a miss.
PEAK_WITHIN = 0.25
#: How far one of our own runs may be off.
OWN_WITHIN = 0.20
GB, MB = 1e9, 1e6
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
QV = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Row:
    """One comparison."""

    kind: str
    """exact, peak, own, most (`got` may not be above `expected`) or least (nor below)."""
    case: str
    expected: float
    got: float
    unit: str
    source: str
    #: Decimals that the source prints: exact rows agree after rounding to them.
    digits: int = 0
    #: What is known about a difference.
    remark: str = ""

    @property
    def error(self) -> float:
        """Relative difference; positive where the planner says more."""
        return self.got / self.expected - 1.0

    @property
    def passed(self) -> bool:
        if self.kind == "exact":
            return abs(round(self.got, self.digits) - self.expected) < 0.5 * 10**-self.digits
        if self.kind == "most":
            return self.got <= self.expected
        if self.kind == "least":
            return self.got >= self.expected
        return abs(self.error) <= (OWN_WITHIN if self.kind == "own" else PEAK_WITHIN)

    @property
    def may_miss(self) -> bool:
        """A miss of it is told and no failure."""
        return self.kind == "peak" or (self.kind == "own" and bool(self.remark))

    def as_json(self) -> dict[str, Any]:
        parts = ("kind", "case", "expected", "got", "unit", "source", "remark")
        return {name: getattr(self, name) for name in parts} | {
            "error": self.error,
            "passed": self.passed,
        }


def llama(
    hidden: int, f: int, layers: int, heads: int, *, kv: int | None = None, vocab: int = 32000
) -> BaseShape:
    return shape_of(
        {
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": f,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv or heads,
        }
    )


#: Shapes as their config.json states them.
LLAMA_7B = llama(4096, 11008, 32, 32)
LLAMA_65B = llama(8192, 22016, 80, 64)
LLAMA2_70B = llama(8192, 28672, 80, 64, kv=8)
LLAMA31_8B = llama(4096, 14336, 32, 32, kv=8, vocab=128256)
LLAMA31_70B = llama(8192, 28672, 80, 64, kv=8, vocab=128256)
LLAMA31_405B = llama(16384, 53248, 126, 128, kv=8, vocab=128256)
SMOLLM2 = packaged_shape("demo")
QWEN3_06B = shape_of(
    {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
)
#: name, shape, then the figures they are known by: parameters, GiB in bf16, at 16
#: bytes a parameter, in NF4 with double quantization, without, with fp32 embeddings; r=16 on all.
TABLE: tuple[tuple[Any, ...], ...] = (
    ("LLaMA-7B", LLAMA_7B, 6_738_415_616, 12.55, 100.4, 3.60, 3.88, 4.09, 39_976_960),
    ("LLaMA-13B", llama(5120, 13824, 40, 40), 13_015_864_320, 24.24, 194.0, 6.71, 7.26, 7.32,
     62_586_880),
    ("LLaMA-33B", llama(6656, 17920, 60, 52), 32_528_943_616, 60.59, 484.7, 16.22, 17.61, 17.01,
     121_896_960),
    ("LLaMA-65B", LLAMA_65B, 65_285_660_672, 121.60, 972.8, 32.09, 34.90, 33.07, 199_884_800),
    ("Llama-3.1-8B", LLAMA31_8B, 8_030_261_248, 14.96, 119.7, 5.31, 5.61, 7.27, 41_943_040),
    ("SmolLM2-135M", SMOLLM2, 134_515_008, 0.25, 2.0, 0.10, 0.11, 0.16, 4_884_480),
)  # fmt: skip

FROZEN: dict[str, Any] = {"tuning": "none", "trained_adapters": 0, "optimizer": "none"}
BF16: dict[str, Any] = {"held": "bfloat16", "other_bytes": 2, "compute_bytes": 2}
NF4: dict[str, Any] = {**BF16, "held": "nf4"}
#: torchtune trains adapters in bf16, with moments in bf16.
TUNE: dict[str, Any] = {"adapter_bytes": 2, "gradient_bytes": 2, "moment_bytes": 2}
COUNTED = "counted from its published shape"
BITS = "arXiv 2305.14314, and bitsandbytes 0.50 as measured"
TORCHTUNE = "torchtune README (batch 2 × 2048, compiled)"
FACTORY = "LLaMA-Factory README, estimated; taken as 1 × 1024 tokens"
TUTORIAL = "torchtune tutorial; tokens taken as 2 × 512"


def held_bytes(shape: BaseShape, **layout: Any) -> int:
    asked = Layout(**{**FROZEN, **layout})
    return weight_bytes(shape, asked) + constant_bytes(shape, asked)


def state_bytes(shape: BaseShape, layout: Layout) -> int:
    """Weights, gradients and moments alone."""
    held = total(resident(shape, layout)) + gradient_term(shape, layout).bytes
    return held + moment_bytes(shape, layout)


def rows() -> list[Row]:
    return [*counts(), *byte_counts(), *quoted(), *claims(), *peaks(), *own()]


def own() -> Iterator[Row]:
    """Our own runs, above the memory after imports."""
    for run in MEASURED:
        above, source = round(run.above_mb), f"measured: {MACHINE}"
        yield Row("own", run.case, above, run.planned_mb, "MB", source, remark=run.remark)


def exact(case: str, expected: float, got: float, unit: str, source: str, digits: int = 0) -> Row:
    return Row("exact", case, expected, got, unit, source, digits)


def counts() -> Iterator[Row]:
    one = Linear("layer", 4096, 4096)
    yield exact("LoRA r=16 on 4096 × 4096", 131_072, 16 * (one.inputs + one.outputs),
                "parameters", "arXiv 2106.09685")  # fmt: skip
    yield exact("… of the layer's weights", 0.78, 100 * 131_072 / one.weights, "%",
                "below 1 %", 2)  # fmt: skip
    yield exact("Qwen3-0.6B, r=16 on q, v", 2_293_760, QWEN3_06B.adapter(QV, 16),
                "parameters", "28 · 16 · (1024 + 2048 + 1024 + 1024)")  # fmt: skip
    yield exact("SmolLM2-135M, r=16 on q, v", 921_600, SMOLLM2.adapter(QV, 16), "parameters",
                COUNTED)  # fmt: skip
    for name, shape, parameters, *_, adapter in TABLE:
        yield exact(name, parameters, shape.parameters, "parameters", COUNTED)
        got = shape.adapter(ALL, 16)
        yield exact(f"{name}, r=16 on all linear layers", adapter, got, "parameters", COUNTED)


def byte_counts() -> Iterator[Row]:
    square, double = Linear("layer", 4096, 4096), Layout(held="nf4")
    plain = Layout(held="nf4", double_quant=False)
    yield exact("NF4, bits a weight", 4.5, bits_per_weight(square, plain), "bits", BITS, 3)
    yield exact("NF4 with double quantization", 4.127, bits_per_weight(square, double), "bits",
                BITS, 3)  # fmt: skip
    for name, shape, _, bf16, mixed, nf4, single, fp32, _ in TABLE:
        for what, expected, got, digits in (
            ("bf16", bf16, held_bytes(shape, **BF16), 2),
            ("16 bytes a parameter", mixed, state_bytes(shape, Layout(tuning="full")), 1),
            ("NF4, double quantization", nf4, held_bytes(shape, **NF4), 2),
            ("NF4, single", single, held_bytes(shape, **NF4, double_quant=False), 2),
            ("NF4, embeddings in fp32", fp32, held_bytes(shape, **{**NF4, "other_bytes": 4}), 2),
        ):
            yield exact(f"{name}, {what}", expected, got / GIB, "GiB", COUNTED, digits)
    yield exact("SmolLM2 KV cache, a token in fp32", 46_080, SMOLLM2.kv_bytes(4), "bytes", COUNTED)
    copy = 512 * SMOLLM2.vocab * 4 / MB
    yield exact("SmolLM2, one copy of 512 tokens' logits", 101, copy, "MB",
                "512 · 49,152 · 4 bytes")  # fmt: skip


def quoted() -> Iterator[Row]:
    pure = Layout(tuning="full", **BF16, gradient_bytes=2)
    yield exact("65B full, 12 bytes a parameter", 783.4, state_bytes(LLAMA_65B, pure) / GB, "GB",
                "QLoRA (“>780 GB”)", 1)  # fmt: skip
    single = held_bytes(LLAMA_65B, **NF4, double_quant=False)
    saved = single - held_bytes(LLAMA_65B, **NF4)
    yield exact("double quantization saves at 65B", 3.02, saved / GB, "GB", "QLoRA (“~3 GB”)", 2)
    base = held_bytes(LLAMA_7B, **{**NF4, "other_bytes": 4})
    yield exact("7B in NF4, embeddings in fp32", 4.39, base / GB, "GB", COUNTED, 2)
    yield Row("peak", "4-bit 7B base as QLoRA measured it", 5048, base * (1 + RUNTIME) / MB, "MB",
              "QLoRA; with the 5 % of runtime")  # fmt: skip
    nf4 = held_bytes(SMOLLM2, held="nf4", other_bytes=4, compute_bytes=4)
    yield Row("peak", "SmolLM2 in NF4 with fp32 embeddings", 166, nf4 / MB, "MB", "measured here")
    full = held_bytes(SMOLLM2)
    yield exact("SmolLM2 in fp32", 538, full / MB, "MB", "measured here")
    yield Row("peak", "checkpointing, input gradients less by", 567 / 18, LLAMA_7B.layers, "times",
              "QLoRA (567 → 18 MB a sequence); one of 32 blocks at a time")  # fmt: skip


def claims() -> Iterator[Row]:
    whole = from_dict({"method": "sft", "tuning": "full", "base": {"source": "7b"}})
    needed = plan(whole, LLAMA_7B, None).total_bytes / weight_bytes(LLAMA_7B, Layout())
    yield Row("least", "LLaMA-7B, full fine-tuning by its weights", 4.0, needed, "times",
              "weights, gradient and two moments alone are 4")  # fmt: skip
    config = from_dict(
        {
            "method": "sft",
            "base": {"source": "70b", "dtype": "bfloat16", "quantization": "nf4"},
            "gradient_checkpointing": True,
        }
    )
    for name, shape in (("Llama-2-70B", LLAMA2_70B), ("Llama-3.1-70B", LLAMA31_70B)):
        needed = plan(config, shape, None).total_bytes
        yield Row("most", f"{name}, QLoRA r=16 on q, v, row of 2,048 tokens", 48.0, needed / GB,
                  "GB", "70B QLoRA in 48 GB")  # fmt: skip
    paged = Layout(**NF4, r=64, targets=ALL, optimizer="paged_adamw_8bit")
    work = recipe(1, 512, logits="full")
    needed = total(peak(training_phases(LLAMA_65B, paged, work))[1])
    yield Row("most", "LLaMA-65B, QLoRA r=64 on all, 1 × 512 tokens", 48.0, needed / GB, "GB",
              "QLoRA (65B on one 48 GB GPU)")  # fmt: skip
    one = Layout(**NF4, targets=ALL, trained_adapters=2, frozen_adapters=1,
                 head_values=LLAMA_7B.hidden)  # fmt: skip
    held = state_bytes(LLAMA_7B, one) / GIB
    yield Row("peak", "PPO on one 7B base in NF4, three adapters", 5.1, held, "GiB",
              "estimate of the adapters' bytes, without KV cache and activations")  # fmt: skip


def recipe(rows: int, length: int, *, logits: str) -> Work:
    """A padded batch of another trainer, with checkpointing and flash attention."""
    tokens = rows * length
    return Work(tokens=tokens, length=length, scored=tokens, masked=False, checkpointing=True,
                logits=logits)  # fmt: skip


def peaks() -> Iterator[Row]:
    packed, alpaca = recipe(2, 2048, logits="eighths"), recipe(2, 512, logits="full")
    qvo = ("q_proj", "v_proj", "o_proj")
    most = (*qvo, "gate_proj", "up_proj", "down_proj")
    in_backward = Layout(tuning="full", **BF16, gradient_bytes=2, optimizer="paged_adamw_8bit",
                         gradient_in_backward=True)  # fmt: skip
    reserved = (
        "9.13 of the 9.29 GB were reserved while torchao quantized the weights, before training; "
        "an allocator's cache is not counted here"
    )
    half = "the recipe's own file has batch_size 1: see the next row"
    cases: tuple[tuple[str, float, str, BaseShape, Layout, Work, str, str], ...] = (
        ("Llama2-7B LoRA", 15.57, "GB", LLAMA_7B, Layout(**BF16, **TUNE, r=8), alpaca, TUTORIAL,
         ""),
        ("Llama2-7B QLoRA", 9.29, "GB", LLAMA_7B, Layout(**NF4, **TUNE, r=8, targets=ALL), alpaca,
         TUTORIAL, reserved),
        ("Llama-3.1-8B full, gradients used at once", 18.9, "GiB", LLAMA31_8B, in_backward, packed,
         TORCHTUNE, ""),
        ("Llama-3.1-8B LoRA", 16.2, "GiB", LLAMA31_8B, Layout(**BF16, **TUNE, r=8, targets=qvo),
         packed, TORCHTUNE, ""),
        ("Llama-3.1-8B QLoRA", 7.4, "GiB", LLAMA31_8B, Layout(**NF4, **TUNE, r=8, targets=most),
         packed, TORCHTUNE, ""),
        ("Llama-3.1-70B LoRA, each of 8", 27.6, "GiB", LLAMA31_70B,
         Layout(**BF16, **TUNE, targets=most, shards=8), packed, TORCHTUNE, ""),
        ("Llama-3.1-405B QLoRA, each of 8", 44.8, "GB", LLAMA31_405B,
         Layout(**NF4, **TUNE, targets=most, shards=8), packed, TORCHTUNE, half),
        ("… with the recipe's batch of 1", 44.8, "GB", LLAMA31_405B,
         Layout(**NF4, **TUNE, targets=most, shards=8), recipe(1, 2048, logits="eighths"),
         "torchtune llama3_1/405B_qlora.yaml", ""),
    )  # fmt: skip
    for case, expected, unit, shape, layout, work, source, remark in cases:
        needed = total(peak(training_phases(shape, layout, work))[1])
        got = needed / (GIB if unit == "GiB" else GB)
        yield Row("peak", case, expected, got, unit, source, remark=remark)
    yield from inits(reserved)
    short = recipe(1, 1024, logits="full")
    lora: dict[str, Any] = {"r": 8, "targets": ALL}
    pure = Layout(tuning="full", **BF16, gradient_bytes=2, moment_bytes=2)
    estimates = (
        ("7B full, mixed precision", 120, LLAMA_7B, Layout(tuning="full", compute_bytes=2)),
        ("7B full, pure bf16", 60, LLAMA_7B, pure),
        ("7B LoRA", 16, LLAMA_7B, Layout(**BF16, **lora)),
        ("7B QLoRA, 8 bits", 10, LLAMA_7B, Layout(**{**BF16, "held": "int8"}, **lora)),
        ("7B QLoRA, 4 bits", 6, LLAMA_7B, Layout(**NF4, **lora)),
        ("70B QLoRA, 4 bits", 48, LLAMA2_70B, Layout(**NF4, **lora)),
    )
    for case, guess, shape, layout in estimates:
        got = total(peak(training_phases(shape, layout, short))[1]) / GB
        yield Row("peak", case, guess, got, "GB", FACTORY)


def inits(remark: str) -> Iterator[Row]:
    """What was held when the model had been loaded."""
    for case, expected, layout, why in (
        ("Llama2-7B LoRA, loaded", 13.98, Layout(**BF16, **TUNE, r=8), ""),
        ("Llama2-7B QLoRA, loaded", 9.13, Layout(**NF4, **TUNE, r=8, targets=ALL), remark),
    ):
        got = total(with_runtime(resident(LLAMA_7B, layout))) / GB
        yield Row("peak", case, expected, got, "GB", TUTORIAL, remark=why)


def table(found: list[Row]) -> str:
    """The rows as lines for a terminal."""
    lines = [
        f"{'':<5} {'kind':<6} {'case':<52} {'expected':>16} {'got':>16} {'unit':<10} "
        f"{'error':>8}  source"
    ]
    for row in found:
        mark = "ok" if row.passed else ("MISS" if row.may_miss else "FAIL")
        lines.append(
            f"{mark:<5} {row.kind:<6} {row.case:<52} {shown(row.expected):>16} "
            f"{shown(row.got):>16} {row.unit:<10} {row.error:>8.1%}  {row.source}"
        )
        if row.remark:
            lines.append(f"{'':<12} {row.remark}")
    of = [row for row in found if row.kind == "peak"]
    ours = [row for row in found if row.kind == "own"]
    missed = [row.case for row in found if row.may_miss and not row.passed]
    wrong = [row.case for row in found if not row.may_miss and not row.passed]
    lines.append(
        f"{len(found) - len(of)} exact figures, bounds and own runs ({len(ours)}), {len(wrong)} "
        f"wrong; {len(of)} peaks, "
        f"{len(missed)} peaks or own runs off by more than {PEAK_WITHIN:.0%} or {OWN_WITHIN:.0%}"
        + (f": {'; '.join(missed)}" if missed else "")
    )
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.3f}"


def markdown(found: list[Row]) -> str:
    """The rows as a table of docs/reference/memory-planner.md."""
    lines = [
        "| case | kind | expected | got | unit | error | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        error = f"{row.error:+.1%}" if row.kind in ("peak", "own") else "–"
        case = row.case if row.passed else f"**{row.case}: missed**"
        lines.append(
            f"| {case} | {row.kind} | {shown(row.expected)} | {shown(row.got)} | {row.unit} | "
            f"{error} | {row.source} |"
        )
    return "\n".join(lines)


def failed(found: list[Row]) -> bool:
    """Whether what is counted is wrong, a bound is broken, or a miss of our own is unexplained."""
    return any(not row.passed for row in found if not row.may_miss)


if __name__ == "__main__":
    print(markdown(rows()))
