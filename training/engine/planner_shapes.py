"""What a base is made of, read from its config.json alone: no weights, no download, no torch.

Parameter counts follow transformers' own modules (5.23), whose every layer is named here:

- a decoder block holds q, k, v and o projections, a gated feed-forward part (gate, up, down) and
  its norms: h·q + 2·h·kv + q·h + 3·h·f weights, where h is the hidden size, f the intermediate
  one, q = heads · head_dim and kv = kv_heads · head_dim (Llama: Touvron et al. 2023, arXiv
  2302.13971; grouped queries: Ainslie et al. 2023, arXiv 2305.13245);
- an encoder block holds query, key, value, output and two feed-forward layers, all with biases,
  and two layer norms (BERT: Devlin et al. 2018, arXiv 1810.04805).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.engine.errors import BaseModelError
from training.engine.packaged import PACKAGED


@dataclass(frozen=True)
class Family:
    """What a `model_type` does that its config.json does not say, or may leave at its default."""

    #: Biases of q, k and v; True, False, or the name of the config's field that says.
    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    #: RMS norms of size h in every block.
    norms: int = 2
    #: A norm of size head_dim on queries and on keys.
    qk_norm: bool = False
    #: q, k, v in one layer, gate and up in another (Phi-3).
    fused: bool = False
    tied: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None


#: Decoders that transformers' own modules were compared with (tests/engine/test_planner_shapes.py).
DECODERS = {
    "llama": Family(mlp_bias="mlp_bias"),
    "mistral": Family(qkv_bias=False, o_bias=False, kv_heads=8),
    "qwen2": Family(qkv_bias=True, o_bias=False),
    "qwen3": Family(qk_norm=True, head_dim=128),
    "gemma": Family(tied=True, head_dim=256),
    "gemma3_text": Family(norms=4, qk_norm=True, tied=True, head_dim=256, kv_heads=4),
    "phi3": Family(qkv_bias=False, o_bias=False, fused=True),
    "smollm3": Family(mlp_bias="mlp_bias", tied=True),
}
#: Decoders whose modules `lean_layers` names: the norms, and the gated units where they use SiLU.
LEAN = ("llama", "mistral", "qwen2", "qwen3")
#: How a config.json may call SiLU.
SILU = ("silu", "swish")
#: Encoders: (names of the attention's layers, of the feed-forward ones, has a pooler).
ENCODERS = {
    "bert": (("query", "key", "value", "dense"), ("dense", "dense"), True),
    "roberta": (("query", "key", "value", "dense"), ("dense", "dense"), True),
    "distilbert": (("q_lin", "k_lin", "v_lin", "out_lin"), ("lin1", "lin2"), False),
}
#: Fields by which a mixture of experts is known.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
#: DistilBERT's names of what the others call by one name.
ALIASES = {
    "hidden_size": ("dim",),
    "intermediate_size": ("hidden_dim",),
    "num_hidden_layers": ("n_layers",),
    "num_attention_heads": ("n_heads",),
}


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block. bias: whether it has one, of `outputs` values."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    #: Which of the block's inputs it reads: layers of one source share what autograd keeps.
    source: str = ""

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, kw_only=True)
class BaseShape:
    """A base by its sizes. All counts are parameters, all sizes values."""

    family: str
    decoder: bool
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    #: Linear layers of one block.
    linears: tuple[Linear, ...]
    #: Values of one block's norms, and of the norm or norms outside the blocks.
    block_norms: int
    outer_norms: int
    #: RMS or layer norms of size h in one block; whether queries and keys have their own.
    norms: int
    qk_norm: bool
    tied: bool
    #: Whether the norms, and the gated units, are among those that `lean_layers` has keep less.
    lean_norms: bool = False
    lean_units: bool = False
    #: Position and segment embeddings, and an encoder's pooler.
    extra_embeddings: int = 0
    pooler: int = 0
    #: Bytes of a stored value, where config.json says; 4 by default.
    stored_bytes: int = 4
    positions: int | None = None

    @property
    def q_size(self) -> int:
        """Values of one token's queries, and of the attention's output."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Values of one token's keys; of its values as many."""
        return self.kv_heads * self.head_dim

    @property
    def linear(self) -> int:
        """Weights of all linear layers of all blocks: what quantization holds in few bits."""
        return self.layers * sum(layer.weights for layer in self.linears)

    @property
    def biases(self) -> int:
        return self.layers * sum(layer.outputs for layer in self.linears if layer.bias)

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden + self.extra_embeddings

    @property
    def head(self) -> int:
        """The language-model head where it is not the embedding; an encoder has none here."""
        return 0 if self.tied or not self.decoder else self.vocab * self.hidden

    @property
    def norm(self) -> int:
        return self.layers * self.block_norms + self.outer_norms

    @property
    def parameters(self) -> int:
        return self.linear + self.biases + self.embedding + self.head + self.norm + self.pooler

    @property
    def largest_tensor(self) -> int:
        """Values of the largest single tensor."""
        return max(self.vocab * self.hidden, *(layer.weights for layer in self.linears))

    def targets(self, names: Iterable[str]) -> tuple[Linear, ...]:
        """The block's layers of these names. Raises BaseModelError for one that it has not."""
        wanted = list(names)
        own = sorted({layer.name for layer in self.linears})
        absent = [name for name in wanted if name not in own]
        if absent:
            raise BaseModelError(
                f"adapter.target_modules names {', '.join(absent)}, which a {self.family} has not; "
                f"it has {', '.join(own)}"
            )
        return tuple(layer for layer in self.linears if layer.name in wanted)

    def adapter(self, names: Iterable[str], r: int, *, dora: bool = False) -> int:
        """Parameters of a LoRA adapter: r · (inputs + outputs) over its layers.

        Hu et al. 2021 (arXiv 2106.09685); DoRA (arXiv 2402.09353) adds a magnitude
        for each output.
        """
        chosen = self.targets(names)
        return self.layers * sum(
            r * (layer.inputs + layer.outputs) + (layer.outputs if dora else 0) for layer in chosen
        )

    def kv_bytes(self, dtype_bytes: int) -> int:
        """Keys and values of one token in the cache: 2 · layers · kv · bytes."""
        return 2 * self.layers * self.kv_size * dtype_bytes

    def as_json(self) -> dict[str, Any]:
        parts = {
            "linear": self.linear,
            "biases": self.biases,
            "embedding": self.embedding,
            "head": self.head,
            "norm": self.norm,
            "pooler": self.pooler,
            "parameters": self.parameters,
        }
        return asdict(self) | parts | {"linears": [asdict(layer) for layer in self.linears]}


def read_shape(path: Path) -> BaseShape:
    """The shape of a base from its config.json, or from the folder that holds it.

    Raises BaseModelError where there is none, or for an architecture that is not known.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaseModelError(
            f"{file} cannot be read: {error.strerror}; give a model's config.json or its folder"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BaseModelError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BaseModelError(f"{file} must hold one JSON object, as a model's config.json does")
    if "base" in found and "method" in found:
        raise BaseModelError(
            f"{file} is the config of a run, not of a model; give it as --config instead"
        )
    return shape_of(found, str(file))


def packaged_shape(name: str) -> BaseShape:
    """The shape of a packaged base, whether or not it is installed here."""
    return shape_of(PACKAGED[name].config, name)


def shape_of_source(source: str) -> BaseShape:
    """The shape of a run's `base.source`: a packaged base, or a folder with config.json.

    Raises BaseModelError for a Hub id or a .gguf file, whose shape is not on this machine as JSON.
    """
    if source in PACKAGED:
        return packaged_shape(source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return read_shape(folder)
    raise BaseModelError(
        f"base.source is {source!r}, and nothing is downloaded to plan: give its config.json "
        "(--base FILE)"
    )


def shape_of(config: Mapping[str, Any], where: str = "config.json") -> BaseShape:
    """The shape that a parsed config.json describes. Raises BaseModelError naming what is wrong."""
    kind = config.get("model_type")
    for name in EXPERTS:
        experts = config.get(name)
        if isinstance(experts, int) and experts > 1:
            raise BaseModelError(
                f"{where}: {kind} is a mixture of {experts} experts ({name}); which of them a "
                "token uses decides its memory, and the planner does not model that: plan a dense "
                "base"
            )
    if isinstance(kind, str) and kind in DECODERS:
        return decoder(config, DECODERS[kind], where)
    if isinstance(kind, str) and kind in ENCODERS:
        return encoder(config, where)
    raise BaseModelError(
        f"{where}: model_type is {kind!r}; the planner knows "
        f"{', '.join(sorted([*DECODERS, *ENCODERS]))}"
    )


def number(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    """A positive whole number of the config. Raises BaseModelError for anything else."""
    value = next(
        (config[key] for key in (name, *ALIASES.get(name, ())) if config.get(key) is not None),
        default,
    )
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BaseModelError(f"{where}: {name} is {value!r}; it must be a whole number above 0")
    return value


def decoder(config: Mapping[str, Any], family: Family, where: str) -> BaseShape:
    hidden = number(config, "hidden_size", where)
    f = number(config, "intermediate_size", where)
    heads = number(config, "num_attention_heads", where)
    kv_heads = number(config, "num_key_value_heads", where, family.kv_heads or heads)
    head_dim = number(config, "head_dim", where, family.head_dim or max(1, hidden // heads))
    if heads % kv_heads:
        raise BaseModelError(
            f"{where}: {heads} attention heads cannot share {kv_heads} key-value heads equally"
        )

    def says(setting: bool | str) -> bool:
        return bool(config.get(setting, False)) if isinstance(setting, str) else setting

    positions = None
    if config.get("max_position_embeddings") is not None:
        positions = number(config, "max_position_embeddings", where)

    qkv, o, mlp = says(family.qkv_bias), says(family.o_bias), says(family.mlp_bias)
    q, kv = heads * head_dim, kv_heads * head_dim
    linears: tuple[Linear, ...]
    if family.fused:
        linears = (
            Linear("qkv_proj", hidden, q + 2 * kv, qkv, "block"),
            Linear("o_proj", q, hidden, o, "attention"),
            Linear("gate_up_proj", hidden, 2 * f, mlp, "feed-forward"),
            Linear("down_proj", f, hidden, mlp, "product"),
        )
    else:
        linears = (
            Linear("q_proj", hidden, q, qkv, "block"),
            Linear("k_proj", hidden, kv, qkv, "block"),
            Linear("v_proj", hidden, kv, qkv, "block"),
            Linear("o_proj", q, hidden, o, "attention"),
            Linear("gate_proj", hidden, f, mlp, "feed-forward"),
            Linear("up_proj", hidden, f, mlp, "feed-forward"),
            Linear("down_proj", f, hidden, mlp, "product"),
        )
    return BaseShape(
        family=str(config["model_type"]),
        decoder=True,
        vocab=number(config, "vocab_size", where),
        hidden=hidden,
        intermediate=f,
        layers=number(config, "num_hidden_layers", where),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        linears=linears,
        block_norms=family.norms * hidden + (2 * head_dim if family.qk_norm else 0),
        outer_norms=hidden,
        norms=family.norms,
        qk_norm=family.qk_norm,
        lean_norms=config["model_type"] in LEAN,
        lean_units=config["model_type"] in LEAN and config.get("hidden_act", "silu") in SILU,
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        stored_bytes=stored_bytes(config),
        positions=positions,
    )


def encoder(config: Mapping[str, Any], where: str) -> BaseShape:
    (q, k, v, out), (first, second), pooler = ENCODERS[config["model_type"]]
    hidden = number(config, "hidden_size", where)
    f = number(config, "intermediate_size", where)
    heads = number(config, "num_attention_heads", where)
    positions = number(config, "max_position_embeddings", where)
    segments = number(config, "type_vocab_size", where, 2) if pooler else 0
    return BaseShape(
        family=str(config["model_type"]),
        decoder=False,
        vocab=number(config, "vocab_size", where),
        hidden=hidden,
        intermediate=f,
        layers=number(config, "num_hidden_layers", where),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        linears=(
            Linear(q, hidden, hidden, True, "block"),
            Linear(k, hidden, hidden, True, "block"),
            Linear(v, hidden, hidden, True, "block"),
            Linear(out, hidden, hidden, True, "attention"),
            Linear(first, hidden, f, True, "feed-forward"),
            Linear(second, f, hidden, True, "product"),
        ),
        block_norms=4 * hidden,
        outer_norms=2 * hidden,
        norms=2,
        qk_norm=False,
        tied=True,
        extra_embeddings=(positions + segments) * hidden,
        pooler=hidden * hidden + hidden if pooler else 0,
        stored_bytes=stored_bytes(config),
        positions=positions,
    )


def stored_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of a stored value; transformers 4 wrote `torch_dtype`, 5 writes `dtype`."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return 2 if "16" in named else 4
