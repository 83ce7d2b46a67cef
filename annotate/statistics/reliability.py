"""How far each annotator's answers say more than chance, as a weight relative to the average."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

#: Pairs of answers that are supposed of every annotator at the average agreement, beside the real
#: ones: five common answers then move a weight by a fifth of what they say.
PRIOR_PAIRS = 20.0
#: No annotator counts for less: agreement that is worse than chance may be a misread guideline.
LEAST = 0.1


def relative_reliability(
    answers: Sequence[tuple[Hashable, Hashable, Hashable]],
) -> dict[Hashable, float]:
    """The reliability of every annotator over the average one; 1 for whom nothing is known.

    An annotator's agreement with others on what both judged is corrected for chance,
    κ = (share − e)/(1 − e), e = Σ p² over the values of all answers (Scott 1955), and drawn to the
    average by PRIOR_PAIRS. If a share s of a person's answers follows the truth and the rest is
    random, κ is proportional to s (the one-coin model of Dawid & Skene 1979).
    answers: (annotator, unit, value)
    """
    by_unit: dict[Hashable, list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for annotator, unit, value in answers:
        by_unit[unit].append((annotator, value))
    equal: dict[Hashable, float] = dict.fromkeys((annotator for annotator, _, _ in answers), 0.0)
    met = dict(equal)
    for given in by_unit.values():
        values = Counter(value for _, value in given)
        for annotator, value in given:
            equal[annotator] += values[value] - 1
            met[annotator] += len(given) - 1
    pairs = sum(met.values())
    counts = Counter(value for _, _, value in answers)
    chance = sum((count / len(answers)) ** 2 for count in counts.values())
    if not pairs or chance == 1.0:
        return dict.fromkeys(equal, 1.0)
    average = sum(equal.values()) / pairs
    if average <= chance:
        return dict.fromkeys(equal, 1.0)
    return {
        annotator: max(
            LEAST,
            ((equal[annotator] + PRIOR_PAIRS * average) / (met[annotator] + PRIOR_PAIRS) - chance)
            / (average - chance),
        )
        for annotator in equal
    }
