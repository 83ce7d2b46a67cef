"""One list of metric names: what the engine reports, what pages show, what the docs say."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from training.engine.metrics import METRICS, as_markdown
from training.selectors.results import GENERATED, HEADLINES
from training.selectors.runs import CURVES

ROOT = Path(__file__).resolve().parents[2]
ENGINE = sorted((ROOT / "training" / "engine").glob("*.py"))
NAME = re.compile(r"[a-z_]+/[a-z0-9_]+\Z")


def names_in(path: Path) -> set[str]:
    """Names of metrics that a module writes: keys of dicts, and what it assigns or adds to.

    A dict of names only is another trainer's names and ours, unless its keys are settings and its
    values the folders of a run (`{"adapter.init_from": "sft/adapter"}`).
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        keys: Sequence[ast.expr | None] = node.keys if isinstance(node, ast.Dict) else []
        if isinstance(node, ast.Dict) and all(is_name(value) for value in node.values):
            keys = [] if any(is_setting(key) for key in node.keys) else node.values
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys = [node.slice]
        found |= {str(key.value) for key in keys if isinstance(key, ast.Constant) and is_name(key)}
    return found


def is_name(node: ast.expr | None) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and NAME.match(node.value) is not None
        and node.value != "application/json"
    )


def is_setting(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and "." in str(node.value)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_every_metric_that_the_engine_writes_has_its_sentence(path: Path) -> None:
    assert names_in(path) <= set(METRICS)


def test_the_reading_above_finds_what_the_loops_write() -> None:
    found = set().union(*(names_in(path) for path in ENGINE if path.name != "metrics.py"))
    assert {
        "loss/train",
        "reward/mean",
        "kl/to_reference",
        "optim/lr",
        "value/explained_variance",
    } <= found


def test_every_name_is_a_sentence_in_one_group() -> None:
    for name, sentence in METRICS.items():
        assert NAME.match(name) or name == "entropy"
        assert sentence.endswith(".")
        assert len(name) <= 60  # what the database's column holds


def test_pages_ask_for_names_that_exist() -> None:
    assert set(CURVES) | set(HEADLINES) <= set(METRICS)
    for prefix in GENERATED:
        assert any(name.startswith(prefix) for name in METRICS)


def test_the_reference_page_is_current() -> None:
    page = ROOT / "docs" / "reference" / "metrics.md"
    assert page.read_text(encoding="utf-8") == as_markdown(), "make docs writes it again"
