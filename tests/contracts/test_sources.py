"""A number of a paper's equation or section that we name is listed with where it was looked up."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs" / "methods" / "sources.md"
#: An arXiv number and right behind it the place in the paper.
NUMBERED = re.compile(r"(\d{4}\.\d{5})\)?,\s+(?:the\s+)?(?:equations?|section|appendix)\b")


def numbered(path: Path) -> set[str]:
    """The papers of which a file names an equation, a section or an appendix."""
    return set(NUMBERED.findall(path.read_text(encoding="utf-8")))


def test_every_numbered_citation_says_where_it_was_looked_up() -> None:
    listed = set(re.findall(r"\d{4}\.\d{5}", SOURCES.read_text(encoding="utf-8")))
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "training" / "engine").glob("*.py")]
    named = {path: numbered(path) for path in pages if path != SOURCES}
    assert len(set().union(*named.values())) >= 12  # the pattern still finds them
    missing = {
        f"{path.relative_to(ROOT)}: {paper}"
        for path, papers in named.items()
        for paper in papers - listed
    }
    assert not missing, "look the number up and list it in docs/methods/sources.md"


def test_what_nobody_could_show_stays_away() -> None:
    gone = {
        "2411.15124": r"2411\.15124\)?,\s+section",
        "2402.14740": r"2402\.14740\)?,\s+section",
        "2402.01306": r"2402\.01306\)?,\s+equation 7",
    }
    pages = [*(ROOT / "docs" / "methods").glob("*.md"), *(ROOT / "training/engine").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages if path != SOURCES)
    assert [paper for paper, pattern in gone.items() if re.search(pattern, text)] == []
