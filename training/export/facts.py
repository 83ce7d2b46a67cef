"""What a pushed model says of itself, gathered from its rows: nothing of this machine, no names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from annotate.models import Snapshot
from training.engine.metrics import METRICS
from training.engine.packaged import PACKAGED
from training.models import ModelVersion, Round, Run, TextSet

#: Config sections of a run that are told; `base` and paths are told in other words.
TOLD = (
    "optim", "adapter", "data", "sft", "reward", "dpo", "kto", "orpo", "ppo", "grpo", "rloo",
    "classify", "pretrain",
)  # fmt: skip


@dataclass(frozen=True)
class BaseModel:
    """The base in words that mean something elsewhere."""

    #: What others load: a Hub id, or a bare name where there is none.
    name: str
    on_hub: bool
    revision: str | None
    quantization: str
    dtype: str
    #: Whether a packaged GGUF copy of it was trained on, instead of the Hub's own weights.
    packaged_gguf: bool


@dataclass(frozen=True)
class Measure:
    """One metric with its interval and the number of rows behind it, where they are known."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    source: str

    @property
    def meaning(self) -> str:
        return METRICS.get(self.name, "")


def base_model(version: ModelVersion) -> BaseModel:
    """The base it was trained from; a whole model's own `base` is the folder of itself."""
    run = version.run if version.model_path else None
    held = run.config["base"] if run is not None else version.base
    source = str(held["source"])
    packaged = PACKAGED.get(source)
    local = source.startswith("/") or source.endswith(".gguf")
    return BaseModel(
        name=packaged.hub_id if packaged else PurePath(source).name if local else source,
        on_hub=not local,
        revision=held.get("revision"),
        quantization=str(held["quantization"]),
        dtype=str(held["dtype"]),
        packaged_gguf=packaged is not None and packaged.is_gguf,
    )


def round_of(version: ModelVersion) -> Round | None:
    return version.run.round if version.run is not None else None


def snapshot_of(version: ModelVersion) -> Snapshot | None:
    return version.run.rows_of if version.run is not None else None


def text_set_of(version: ModelVersion) -> TextSet | None:
    return version.run.text_set if version.run is not None else None


def reward_model_of(version: ModelVersion) -> ModelVersion | None:
    """The reward model that a policy maximised, and that judged the others in evaluation."""
    round = round_of(version)
    if version.kind == ModelVersion.Kind.REWARD or round is None:
        return None
    return round.reward_version


def training_config(version: ModelVersion) -> dict[str, Any]:
    """The run's settings without its paths: adapters are named by their digests instead."""
    if version.run is None:
        return {}
    config = version.run.config
    told: dict[str, Any] = {"method": config["method"], "seed": config.get("seed", 0)}
    for section in TOLD:
        values = config.get(section)
        if values:
            told[section] = {
                key: value
                for key, value in values.items()
                if value is not None
                and not (isinstance(value, str) and ("/" in value or "\\" in value))
            }
    return told


def measures(version: ModelVersion) -> list[Measure]:
    """The run's own metrics, then those of its round's evaluation of this version."""
    found: list[Measure] = []
    snapshot, round = snapshot_of(version), round_of(version)
    if version.run is not None and version.metrics:
        texts = text_set_of(version)
        n = snapshot.n_test if snapshot is not None else texts.n_held_out if texts else None
        limit = (version.run.config.get("data") or {}).get("max_test_rows")
        n = min(n, limit) if n is not None and limit else n
        found += paired(version.metrics, n, "training run")
    if round is not None and round.policy_version_id == version.pk:
        evaluation = (
            round.runs.filter(method=Run.Method.EVALUATE, result__isnull=False)
            .order_by("-pk")
            .first()
        )
        if evaluation is not None and evaluation.result:
            rows = evaluation.result.get("rows")
            found += paired(evaluation.result.get("metrics", {}), rows, "evaluation")
    return found


def paired(metrics: dict[str, Any], n: int | None, source: str) -> list[Measure]:
    """Metrics with their `_low` and `_high` beside them. `n` belongs to held-out pairs alone."""
    ends = ("_low", "_high")
    on_pairs = ("accuracy", "margin")
    return [
        Measure(
            name=name,
            value=float(value),
            low=metrics.get(f"{name}_low"),
            high=metrics.get(f"{name}_high"),
            n=None if name.startswith("probe/") or not any(w in name for w in on_pairs) else n,
            source=source,
        )
        for name, value in metrics.items()
        if not name.endswith(ends) and value is not None
    ]


def lineage(version: ModelVersion) -> dict[str, Any]:
    """snapshot ▸ reward model ▸ policy as data; every part is named by the hash of its bytes."""
    snapshot, round, base = snapshot_of(version), round_of(version), base_model(version)
    texts = text_set_of(version)
    result = (version.run.result or {}) if version.run is not None else {}
    return {
        "schema": 1,
        "version": named(version),
        "base": {
            "name": base.name,
            "on_hub": base.on_hub,
            "revision": base.revision,
            "quantization": base.quantization,
            "dtype": base.dtype,
        },
        "parent": named(version.parent),
        "reward_model": named(reward_model_of(version)),
        "round": {"number": round.number, "method": round.method} if round is not None else None,
        "snapshot": {
            "project": snapshot.project.slug,
            "number": snapshot.number,
            "sha256": snapshot.sha256,
            "n_train": snapshot.n_train,
            "n_test": snapshot.n_test,
        }
        if snapshot is not None
        else None,
        "text_set": {
            "name": texts.name,
            "version": texts.version,
            "kind": texts.kind,
            "sha256": texts.sha256,
            "source": texts.source,
            "licence": texts.licence,
            "n_train": texts.n_train,
            "n_held_out": texts.n_held_out,
        }
        if texts is not None
        else None,
        "config": training_config(version),
        "metrics": version.metrics,
        "config_sha256": result.get("config_sha256"),
        "data_sha256": result.get("data_sha256"),
        "library_versions": result.get("versions", {}),
    }


def named(version: ModelVersion | None) -> dict[str, str] | None:
    if version is None:
        return None
    return {"name": version.name, "kind": version.kind, "sha256": version.digest}
