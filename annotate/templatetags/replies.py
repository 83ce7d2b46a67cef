"""`{{ judgment|replies }}`: what a judgment says beside its answer, a line each."""

from __future__ import annotations

from django import template

from annotate.models import Judgment

register = template.Library()


@register.filter
def replies(judgment: Judgment) -> list[str]:
    """Plain lines about A and B; of a ranking the letters are the stored positions'."""
    said = judgment.details
    found = []
    if judgment.strength:
        found.append(f"strength {abs(judgment.strength)}")
    if "ranking" in said:
        tied = (
            " = ".join("ABCDEFGHI"[position] for position in group) for group in said["ranking"]
        )
        found.append(" > ".join(tied))
    for name, better in said.get("aspects", {}).items():
        found.append(f"{name}: {better if better == 'tie' else better.upper()}")
    for side, rated in said.get("ratings", {}).items():
        found += [f"{name} of {side.upper()}: {score}" for name, score in rated.items()]
    if "reasons" in said:
        found.append(", ".join(said["reasons"]))
    for span in said.get("spans", []):
        found.append(f"{span['category']} in {span['on'].upper()}, {span['start']}–{span['end']}")
    if "rewrite" in said:
        found.append(f"rewrite of {said['rewrite']['of'].upper()}: {said['rewrite']['text']}")
    if said.get("known_model"):
        found.append("knew the model")
    return found
