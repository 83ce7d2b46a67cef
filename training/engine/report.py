"""An evaluation as one HTML file: no scripts, nothing loaded, all text of models escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from training.engine.probe_figures import what_fell
from training.engine.report_pictures import bars, frontier, reliability_curve

TITLES = {"reward": "Reward model", "policy": "Policy by its implicit reward"}
SAYS = {
    "inter_annotator": "two people on the same pair",
    "intra_annotator": "one person twice on the same pair",
    "reward": "reward-model score",
    "kl": "KL to the reference (nats, k1)",
    "length": "length (tokens)",
    "eos_rate": "ended by the model itself",
    "repeated_4grams": "share of 4-grams that repeat",
    "refusal_rate": "opens like a refusal (phrase list)",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
}
STYLE = """
:root{color-scheme:light dark;--ink:#1b1d22;--paper:#fff;
--dim:#5b606b;--line:#d9dce2;--mark:#2457c5}
@media(prefers-color-scheme:dark){:root{--ink:#e7e9ee;--paper:#15171c;
--dim:#a2a8b4;--line:#343943;--mark:#8ab0ff}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:62rem;margin:0 auto;padding:1rem}
figure{margin:1rem 0}h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}h3{font-size:1rem}
.box{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
td.text{white-space:pre-wrap;overflow-wrap:anywhere;min-width:10rem}
svg{width:100%;height:auto;max-width:26rem;fill:var(--ink)}svg.small{max-width:20rem}
svg text{font-size:13px;text-anchor:middle;fill:var(--dim)}svg text.name{text-anchor:start}
circle{fill:var(--mark)}circle.other{fill:none;stroke:var(--dim)}.axis{stroke:var(--ink);fill:none;stroke-width:1.5}
.ideal{stroke:var(--dim);fill:none;stroke-dasharray:4 4}p.note{color:var(--dim)}
@media print{body{max-width:none}h2,figure,tr{break-inside:avoid}}
"""


def page(evaluation: Mapping[str, Any], *, base: str) -> str:
    """The report of an `evaluation` (evaluation.py)."""
    parts = [f"<p>Base: {escape(base)}. Intervals are 95 %, clustered by prompt.</p>"]
    parts += [pairs_part(TITLES[k], evaluation[k]) for k in TITLES if k in evaluation]
    if "answers" in evaluation:
        parts.append(answers_part(evaluation["answers"]))
    if "judge" in evaluation:
        parts.append(judge_part(evaluation["judge"]))
    if "forgetting" in evaluation:
        parts.append(forgetting_part(evaluation["forgetting"]))
    if "frontier" in evaluation:
        parts.append(frontier_part(evaluation["frontier"]))
    return document("Evaluation", "".join(parts))


def document(title: str, body: str) -> str:
    """A page that needs nothing beside itself; the body is HTML, its texts escaped."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def number(value: Any) -> str:
    """A figure, with its interval and n where it has them."""
    if value is None:
        return "not known: no row says it"
    if not isinstance(value, Mapping):
        return f"{value:.3f}"
    if value["value"] is None:
        return f"not a number, n = {value['n']}"
    if value["low"] is None:
        return f"{value['value']:.3f}, no interval (one prompt), n = {value['n']}"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}], n = {value['n']}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table in a box that scrolls by itself; every cell is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="box"><table><tr>{top}</tr>{body}</table></div>'


def pairs_part(title: str, found: Mapping[str, Any]) -> str:
    """Held-out accuracy against people, its buckets, and the reliability curve."""
    main = {
        "this model": found["accuracy"],
        **{SAYS[name]: value for name, value in found["human"].items()},
    }
    shown = {name: value for name, value in main.items() if value is not None}
    html = f"<h2>{title} on held-out pairs</h2><figure>{bars(shown)}</figure>"
    html += table(("agreement of", "share"), [(name, number(v)) for name, v in main.items()])
    for key, name in (
        ("by_agreement", "agreement of its annotators"),
        ("by_length", "longer response"),
        ("by_annotator", "annotator (against that person's own choices)"),
    ):
        if found[key]:
            html += f"<h3>By {name}</h3>"
            html += table((name, "share"), [(k, number(v)) for k, v in found[key].items()])
    calibration = found["calibration"]
    curve = reliability_curve(calibration["bins"]).replace("<svg ", '<svg class="small" ', 1)
    html += f"<h3>Reliability</h3><figure>{curve}</figure>"
    html += (
        f"<p>Expected calibration error {calibration['ece']:.3f}, n = {calibration['n']} "
        "(no interval: a bootstrap of it is biased upwards).</p>"
    )
    return html + table(
        ("confidence", "rows", "mean confidence", "accuracy"),
        [
            (
                f"{b['above']:.2f} to {b['to']:.2f}",
                f"{b['rows']}",
                number(b["confidence"]),
                number(b["accuracy"]),
            )
            for b in calibration["bins"]
            if b["rows"]
        ],
    )


def answers_part(found: Mapping[str, Any]) -> str:
    """Win rate by the reward model, figures of both sides, and a few answers."""
    html = f"<h2>Answers</h2><p>The policy wins by the reward model: {number(found['win_rate'])} "
    html += "(ties count half).</p>"
    rows = [
        (SAYS[name], number(value), number(found["reference"][name]))
        for name, value in found["policy"].items()
    ]
    html += table(("figure", "policy", "reference"), rows)
    examples = [(e["prompt"], e["policy"], e["reference"]) for e in found["examples"]]
    return html + "<h3>Examples</h3>" + table(("prompt", "policy", "reference"), examples, "text")


def judge_part(found: Mapping[str, Any]) -> str:
    """Win rate by a judge, and what it could not say; or by people."""
    if found["people"]:
        by = f"{found['people']} {'person' if found['people'] == 1 else 'people'}"
        return (
            f"<h2>Old against new, by people</h2><p>The new model wins: {number(found['rate'])}, "
            f"judged by {by} (ties count half).</p>"
        )
    return (
        f"<h2>Judge</h2><p>The new model wins: {number(found['rate'])} (ties count half). "
        f"{found['flipped']} judgments flipped with the order and are ties; {found['failed']} "
        "failed and are left out.</p>"
    )


def forgetting_part(found: Mapping[str, Any]) -> str:
    """Perplexity of general text before and after, and what the gate says of its change."""
    verdict = {None: "No gate was set.", True: "Passed", False: "Failed"}[found["passed"]]
    if found["gate"] is not None:
        verdict += f" the forgetting gate: at most {found['gate']:+.1%} was allowed."
    rows = [
        ("reference", number(found["before"])),
        ("policy", number(found["after"])),
        ("change, as a share", number(found["change"])),
    ]
    html = f"<h2>Forgetting</h2><p>{escape(verdict)} Intervals resample documents.</p>" + table(
        ("perplexity of general text", "value"), rows
    )
    return html + (probes_part(found["probes"]) if "probes" in found else "")


def probes_part(found: Mapping[str, Any]) -> str:
    """Questions answered right before and after, by kind too, and what their gate says."""
    said = "No gate was set."
    if found["passed"] is False:
        said = f"Failed the forgetting gate: {what_fell(found)}."
    elif found["passed"]:
        said = f"Passed the forgetting gate: a fall by at most {found['gate']:.1%} was allowed, or "
        said += "by more where the interval reaches 0."
    rows = [
        ("reference", number(found["before"])),
        ("policy", number(found["after"])),
        ("change", number(found["change"])),
    ]
    html = f"<h3>General questions</h3><p>{escape(said)} Intervals are Wilson's; that of the "
    html += "change resamples questions.</p>" + table(("answered right", "share"), rows)
    kinds = [
        (kind, number(each["before"]), number(each["after"]))
        for kind, each in found["by_kind"].items()
    ]
    return html + table(("kind of question", "reference", "policy"), kinds)


def frontier_part(points: Sequence[Mapping[str, Any]]) -> str:
    """Reward over KL of the policy's training steps; the table holds the frontier alone."""
    best = [each for each in points if each["best"]]
    rows = [(f"{e['step']}", number(e["kl"]), number(e["reward"])) for e in best]
    return (
        f"<h2>Reward over KL</h2><figure>{frontier(points)}</figure>"
        f"<p>{len(points)} training steps; filled, and below: the {len(best)} that no other "
        "reached with as little KL. The reward is the one trained on.</p>"
        + table(("step", "KL to the reference (nats)", "mean reward"), rows)
    )
