"""Accuracy on held-out human labels at a few points of a run, for the over-optimisation alarm.

Gao et al. 2023 (arXiv 2210.10760) tell over-optimisation by a gold reward that falls while the
proxy rises. Here the gold is people: the share of held-out pairs that the policy's implicit reward
(Rafailov et al. 2023, section 4), or the reward model being trained, ranks as they did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from training.engine.alarms import HELD_OUT, held_out_due
from training.engine.data import Pair
from training.engine.errors import DataError
from training.engine.intervals import clustered_interval, right, wilson
from training.engine.rundir import RunDir
from training.engine.steps import Steps


class HeldOut:
    """Measures between two steps, where the alarm asks for it."""

    def __init__(
        self,
        run: RunDir,
        steps: Steps,
        pairs: Sequence[Pair],
        margins: Callable[[Sequence[Pair]], list[float]],
        *,
        total: int,
    ) -> None:
        """margins: what the current weights give chosen more than rejected, one per pair.

        Raises DataError where the alarm is to stop the run and there is nothing to measure on.
        """
        alarms = run.config.alarms
        if alarms.over_optimisation == "stop" and not pairs:
            raise DataError(
                f"alarms.over_optimisation is stop, and {run.config.data.test} holds no rows to "
                "measure on; give held-out rows, or set it to warn or off"
            )
        wanted = 0 if alarms.over_optimisation == "off" else alarms.over_optimisation_rows
        self._run, self._steps, self._margins = run, steps, margins
        self._pairs = list(pairs[:wanted])
        self._due = held_out_due(total=total, parts=alarms.over_optimisation_points)

    def values(self) -> dict[str, float]:
        """The figures of this point, where it is due; they join the metrics of the next step."""
        point = self._run.alarms.seen.points
        if not self._pairs or point not in self._due:
            return {}
        with self._steps.weights_at_rest():
            margins = self._margins(self._pairs)
        clusters = [pair.prompt_id for pair in self._pairs]
        mean, low, high = clustered_interval(right(margins), clusters)
        if self._run.alarms.is_best(mean):
            self._steps.last_good.reach_best(point)
        # a bootstrap of a few rows that are all right knows no doubt, Wilson's interval does
        least = wilson_low(mean, len(set(clusters)))
        low = least if low is None else min(low, least)
        ends = {} if high is None else {f"{HELD_OUT}_high": high}
        return {HELD_OUT: mean, f"{HELD_OUT}_low": low, **ends}


def wilson_low(share: float, n: int) -> float:
    """Lower end of the 95 % interval of a share of n (Wilson 1927)."""
    return wilson(share, n)[0]
