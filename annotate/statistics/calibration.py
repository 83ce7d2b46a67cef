"""How far a machine's judgments can be believed: against people's, by place and by length.

Pure: plain rows in, figures out. Intervals resample whole prompts, since answers to pairs of one
prompt resemble each other (Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annotate.statistics.agreement import bootstrap

VALUES = ("a", "b", "tie")
#: An interval is given where at least this share of the resamples has a value.
DEFINED = 0.95
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One comparison that people and the machine judged.

    person, machine: "a", "b" or "tie". a_first, b_first: what the machine said with A, or B, shown
    first. longer: "a" or "b", whichever has more characters; "" where they are equal.
    """

    prompt: str
    person: str
    machine: str
    a_first: str
    b_first: str
    longer: str


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval, n rows behind it; None where nothing defines it."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Figures:
    """agreement: share of equal answers of a, b, tie. kappa: Cohen's, on the same rows.

    decided: share of equal answers where both chose a side. first_place: share of the machine's
    single verdicts for a side that are for the answer shown first (0.5 without bias).
    machine_longer, person_longer: share of choices that are for the longer answer;
    longer_difference: the first less the second, on rows where both chose a side.
    """

    agreement: Figure
    kappa: Figure
    decided: Figure
    first_place: Figure
    machine_longer: Figure
    person_longer: Figure
    longer_difference: Figure


def calibrate(rows: Sequence[Judged], *, seed: int = 0) -> Figures:
    """The figures of these rows."""
    prompts = [row.prompt for row in rows]

    def share(parts: Sequence[tuple[float, float]]) -> Figure:
        table = np.array(parts, dtype=float).reshape(-1, 2)
        return interval(table, prompts, ratio, n=int(table[:, 1].sum()), seed=seed)

    both = [row.person in ("a", "b") and row.machine in ("a", "b") for row in rows]
    lengths = [(row, chose and row.longer != "") for row, chose in zip(rows, both, strict=True)]
    return Figures(
        agreement=share([(row.person == row.machine, 1.0) for row in rows]),
        kappa=interval(confusion(rows), prompts, kappa_of, n=len(rows), seed=seed),
        decided=share(
            [
                (chose and row.person == row.machine, chose)
                for row, chose in zip(rows, both, strict=True)
            ]
        ),
        first_place=share(
            [
                (
                    (row.a_first == "a") + (row.b_first == "b"),
                    (row.a_first in ("a", "b")) + (row.b_first in ("a", "b")),
                )
                for row in rows
            ]
        ),
        machine_longer=share([(use and row.machine == row.longer, use) for row, use in lengths]),
        person_longer=share([(use and row.person == row.longer, use) for row, use in lengths]),
        longer_difference=share(
            [
                (use * (float(row.machine == row.longer) - float(row.person == row.longer)), use)
                for row, use in lengths
            ]
        ),
    )


def confusion(rows: Sequence[Judged]) -> Array:
    """One line a row: a 1 in the cell of (person, machine). Returns: (rows, 9)"""
    table = np.zeros((len(rows), len(VALUES) ** 2))
    for line, row in enumerate(rows):
        table[line, VALUES.index(row.person) * len(VALUES) + VALUES.index(row.machine)] = 1.0
    return table


def ratio(sums: Array) -> Array:
    """Hits over rows. sums: (…, 2). Returns: (…), NaN without rows"""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def kappa_of(sums: Array) -> Array:
    """Cohen's kappa of confusion tables (Cohen 1960, equation 1). sums: (…, 9). Returns: (…)

    NaN where both always gave the same one answer: chance agreement is then certain.
    """
    k = len(VALUES)
    table = sums.reshape(*sums.shape[:-1], k, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = table / table.sum(axis=(-2, -1), keepdims=True)
        observed = np.trace(shares, axis1=-2, axis2=-1)
        expected = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
        return np.where(expected < 1.0, (observed - expected) / (1.0 - expected), np.nan)


def interval(
    table: Array, prompts: Sequence[str], of: Callable[[Array], Array], *, n: int, seed: int
) -> Figure:
    """A figure of summed parts and its percentile interval. table: (rows, parts)"""
    if not len(table):
        return Figure(None, None, None, 0)
    value = float(of(table.sum(axis=0)))
    if np.isnan(value):
        return Figure(None, None, None, n)
    _, cluster_of = np.unique(np.array(prompts), return_inverse=True)
    sums = np.zeros((int(cluster_of.max()) + 1, table.shape[1]))
    np.add.at(sums, cluster_of, table)
    if len(sums) < 2:
        return Figure(value, None, None, n)
    values = bootstrap(sums, of, seed=seed)
    defined = values[~np.isnan(values)]
    if len(defined) < DEFINED * len(values):
        return Figure(value, None, None, n)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Figure(value, float(low), float(high), n)
