"""The key figures of an evaluation with their intervals, and where its report lies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from training.engine.frontier import Point, with_frontier
from training.models import Round, Run
from training.selectors.judged import old_new_rows

REWARD = "reward/mean"
#: The KL that a method reports; the first one that is there.
KLS = ("kl/to_reference", "kl/k3")
SIDES = {"policy": "the policy", "reference": "the reference"}
ANSWERS = {
    "length": "length in tokens",
    "repeated_4grams": "4-grams that repeat, share",
    "refusal_rate": "opens like a refusal, share",
    "eos_rate": "ended by itself, share",
}
VERDICTS = {None: "no gate", True: "passed the gate", False: "failed the gate"}
BUCKETS = {
    "by_annotator": "By annotator, against that person's own choices",
    "by_agreement": "By agreement of a pair's annotators",
    "by_length": "By length of the longer response",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a table; without a value it is not known, and `why` says why."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    why: str = ""

    @property
    def of_one(self) -> bool:
        """Whether its interval is lacking because one prompt says nothing of others."""
        return self.value is not None and self.low is None and not self.why


@dataclass(frozen=True)
class Part:
    """A table of figures, and further ones that are opened by whoever wants them."""

    title: str
    figures: list[Figure]
    buckets: list[tuple[str, list[Figure]]]


def evaluation_parts(run: Run) -> list[Part]:
    """What a finished evaluation measured; none for a run that is no evaluation."""
    found = (run.result or {}).get("evaluation") or {}
    parts = []
    for key, title in (
        ("reward", "Reward model on held-out pairs"),
        ("policy", "Policy by its implicit reward on held-out pairs"),
    ):
        if key in found:
            parts.append(pairs_part(title, found[key]))
    if "answers" in found:
        answers = found["answers"]
        figures = [figure("the policy wins, by the reward model", answers["win_rate"])]
        figures += [
            figure(f"{said}: {whose}", answers[side][name])
            for name, said in ANSWERS.items()
            for side, whose in SIDES.items()
        ]
        parts.append(Part("Answers to held-out prompts", figures, []))
    if "judge" in found:
        who = "people" if found["judge"].get("people") else "a judge"
        rate = figure(f"the new model wins, by {who}", found["judge"]["rate"])
        parts.append(Part("Old against new", [rate], []))
    if "forgetting" in found:
        parts.append(forgetting_part(found["forgetting"]))
    return parts


def forgetting_part(found: Mapping[str, Any]) -> Part:
    verdict = VERDICTS[found["passed"]]
    figures = [
        figure("perplexity of general text, the reference", found["before"]),
        figure("perplexity of general text, the policy", found["after"]),
        figure(f"change, as a share ({verdict})", found["change"]),
    ]
    probes = found.get("probes")  # older results hold none
    if probes is None:
        return Part("Forgetting", figures, [])
    figures += [
        figure("general questions answered right, share: the reference", probes["before"]),
        figure("general questions answered right, share: the policy", probes["after"]),
        figure(f"change of that share ({VERDICTS[probes['passed']]})", probes["change"]),
    ]
    by_kind = [
        figure(f"{kind}: {whose}", each[side])
        for kind, each in probes["by_kind"].items()
        for side, whose in (("before", "the reference"), ("after", "the policy"))
    ]
    return Part("Forgetting", figures, [("General questions, by kind", by_kind)])


def pairs_part(title: str, found: Mapping[str, Any]) -> Part:
    human, calibration = found["human"], found["calibration"]
    figures = [
        figure("agrees with what people preferred", found["accuracy"]),
        figure("two people on the same pair agree", human["inter_annotator"],
               "no pair was judged by two people"),
        figure("one person twice on the same pair agrees", human["intra_annotator"],
               "nobody judged a pair twice"),
        Figure("expected calibration error", calibration["ece"], n=calibration["n"],
               why="a bootstrap of it is biased upwards"),
    ]  # fmt: skip
    buckets = [
        (said, [figure(name, value) for name, value in found[key].items()])
        for key, said in BUCKETS.items()
        if found[key]
    ]
    return Part(title, figures, buckets)


def figure(name: str, found: Mapping[str, Any] | None, why: str = "nothing to measure") -> Figure:
    if found is None:
        return Figure(name, None, why=why)
    return Figure(name, found["value"], found["low"], found["high"], found["n"])


def report_path(run: Run) -> Path | None:
    """The report that a run's result names, inside its folder; None where there is none (left)."""
    named = (run.result or {}).get("report")
    if not isinstance(named, str):
        return None
    folder = (Path(settings.RUNS_DIR) / run.folder).resolve()
    path = (folder / named).resolve()
    return path if path.is_relative_to(folder) and path.is_file() else None


def people_prefer(round: Round) -> Figure | None:
    """How often people judged the round's new answers better than the old ones, by now."""
    if round.policy_version is None:
        return None
    rows = old_new_rows(project=round.project, old=round.reference, new=round.policy_version)
    if not rows:
        return None
    from training.engine.win_rate import by_judge  # numpy, which the web starts without

    return figure("the new answer wins, by people", by_judge(rows)["rate"])


def failed_gate(round: Round) -> str:
    """What the round's newest evaluation says of a forgetting gate that it failed; else empty."""
    run = round.runs.filter(stage="evaluate", result__isnull=False).order_by("-pk").first()
    found = ((run and run.result) or {}).get("evaluation", {}).get("forgetting")
    said = []
    if found and found["passed"] is False:
        said.append(
            f"perplexity of general text rose by {found['change']['value']:.1%}, and at most "
            f"{found['gate']:.1%} was allowed"
        )
    probes = (found or {}).get("probes")
    if probes and probes["passed"] is False:
        from training.engine.probe_figures import what_fell  # numpy, as above

        said.append(what_fell(probes))
    return f"it failed the forgetting gate: {'; '.join(said)}" if said else ""


def run_frontier(run: Run) -> list[Point]:
    """Mean reward over KL of an online run's steps, those of the frontier marked."""
    if not run.is_online:
        return []
    values: dict[int, dict[str, float]] = defaultdict(dict)
    for name, step, value in run.metrics.filter(name__in=(REWARD, *KLS)).values_list(
        "name", "step", "value"
    ):
        values[step][name] = value
    points = []
    for step, known in values.items():
        kl = next((known[name] for name in KLS if name in known), None)
        if kl is not None and REWARD in known:
            points.append(Point(step, kl, known[REWARD]))
    return with_frontier(points) if len(points) > 1 else []
