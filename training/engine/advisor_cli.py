"""`python -m training.engine advise`: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.engine.advisor import Advice, advise
from training.engine.advisor_case import Case, case_from_dict
from training.engine.advisor_presets import Stage
from training.engine.advisor_ranking import Option, OtherInput
from training.engine.advisor_rules import OPTIONS
from training.engine.errors import ConfigError, UsageError
from training.engine.packaged import PACKAGED
from training.engine.planner_cli import duration
from training.engine.planner_shapes import BaseShape, read_shape, shape_of_source
from training.engine.tether import add_tether, tie

if TYPE_CHECKING:
    from training.engine.domain import Distance

EXIT_DONE, EXIT_FAILED = 0, 1
GB = 1e9
WIDTH = 100
#: A said distance that is this far from the measured one is worth a word.
SURPRISE = 0.3


def add_command(commands: Any) -> None:
    """Add `advise` to the engine's commands."""
    command = commands.add_parser(
        "advise",
        help="whether to train, retrieve or prompt, and with which run to start",
        description="Ranks the ways to adapt a model to a case, each with its reasons, whether it "
        "fits the hardware, and the nearest change of one input that would put another first. "
        "With --text it measures how far your texts are from general ones under the base, which "
        "loads it. Exit status 1 where nothing can be done.",
    )
    command.add_argument(
        "--case",
        type=Path,
        required=True,
        metavar="CASE_JSON",
        help="the case; its fields: docs/how-to/choose-an-adaptation.md",
    )
    command.add_argument(
        "--base",
        metavar="SOURCE",
        help="demo, minilm, a model's folder or its config.json, instead of the case's own base",
    )
    command.add_argument(
        "--text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="your domain's texts, in UTF-8: the distance is measured instead of said",
    )
    command.add_argument(
        "--general",
        type=Path,
        metavar="FILE",
        help="general text in your language to compare them with (default: English, enclosed)",
    )
    command.add_argument(
        "--preset",
        choices=tuple(OPTIONS),
        metavar="OPTION",
        help="print the runs of an option as JSON instead: %(choices)s",
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command.add_argument("--out", type=Path, metavar="FILE", help="… written to a file")
    add_tether(command)


def run(options: argparse.Namespace) -> int:
    """Do what the options of `advise` say. Returns the exit status; raises EngineError."""
    if options.heartbeat_fd is not None:  # by hand, Ctrl-C ends it at once
        tie(options.heartbeat_fd, options.patience_s)
    if options.general is not None and options.text is None:
        raise UsageError("--general is what --text is compared with; give --text as well")
    case = read_case(options.case, options.base)
    measured: Distance | None = None
    notes: list[str] = []
    if options.text is not None:
        from training.engine.domain import measure_files

        measured = measure_files(options.text, case.base, general=options.general)
        notes = surprises(case, measured.distance)
        case = replace(case, domain_distance=measured.distance, domain_measured=True)
    found = advise(case)
    found = replace(found, notes=[*notes, *found.notes])
    if options.preset is not None:
        chosen = found.option(options.preset)
        print(json.dumps([stage.config for stage in chosen.stages], indent=2, ensure_ascii=False))
        return EXIT_DONE if chosen.possible else EXIT_FAILED
    if options.json or options.out is not None:
        measurement = measured.as_json() if measured is not None else None
        whole = found.as_json() | {"measured_distance": measurement}
        text = json.dumps(whole, indent=2, ensure_ascii=False)
        if options.out is None:
            print(text)
        else:
            options.out.write_text(text + "\n", encoding="utf-8")
    else:
        if measured is not None:
            print(measured.table(), end="\n\n")
        print(as_table(found))
    return EXIT_DONE if found.first is not None else EXIT_FAILED


def read_case(path: Path, base: str | None) -> Case:
    """The case of a file, its base replaced where one is named. Raises EngineError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold one JSON object, the case")
    if base is not None:
        data = data | {"base": base, "base_config": None}
    if data.get("base_config") is None:
        return case_from_dict(data, shape_at(data.get("base", "demo")))
    return case_from_dict(data)


def shape_at(source: Any) -> BaseShape | None:
    """The shape of a base on this machine; None for one that is elsewhere (a Hub id, a .gguf)."""
    if not isinstance(source, str):
        return None  # the case's reader says what is wrong with it
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".json":
        return read_shape(path)
    return shape_of_source(source) if source in PACKAGED or path.is_dir() else None


def surprises(case: Case, measured: float) -> list[str]:
    """What to say where the case's own distance is another."""
    said = case.domain_distance
    if said is None or abs(said - measured) < SURPRISE:
        return []
    return [f"the case says a domain distance of {said:.2f}, and {measured:.2f} was measured"]


def as_table(found: Advice) -> str:
    """Advice as lines for a terminal."""
    lines = [f"{'option':<40} {'score':>5}  {'memory':>9}  fits"]
    for option in found.options:
        held = max((stage.total_bytes or 0 for stage in option.stages), default=0)
        memory = f"{held / GB:.2f} GB" if held else "unknown"
        fits = {True: "yes", False: "no", None: "unknown"}[option.fits]
        said = fits if option.possible else f"{fits}; ruled out"
        lines.append(f"{option.title:<40} {option.score:>5.1f}  {memory:>9}  {said}")
    if found.first is not None:
        lines += ["", *first_lines(found.first)]
    out = [option for option in found.options if not option.possible]
    if out:
        lines += ["", "ruled out"]
        for option in out:
            said = "; ".join(block.says for block in option.blocks)
            lines += wrapped(f"  {option.title}: {said}")
    others = [o for o in found.options[1:] if o.nearest is not None and o.nearest.first == o.name]
    if others:
        lines += ["", "another would be first, the nearest change of one input for each:"]
        lines += [f"  {option.title}: {in_words(option.nearest)}" for option in others]
    for note in found.notes:
        lines += wrapped(f"note: {note}")
    return "\n".join(lines)


def first_lines(option: Option) -> list[str]:
    """The reasons of an option, its runs, and what would dethrone it."""
    lines = [
        f"first: {option.title}, because",
        f"  {'factor':<17} {'grade':>5} {'weight':>6}  says",
    ]
    for reason in sorted(option.reasons, key=lambda each: -each.grade * each.weight):
        says = f"{reason.says} [{reason.source}]"
        head = f"  {reason.factor:<17} {reason.grade:>5.2f} {reason.weight:>6.1f}  "
        lines += textwrap.wrap(says, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    if option.assumes:
        lines += wrapped(f"  it assumes {'; '.join(option.assumes)}")
    lines += [line for stage in option.stages for line in wrapped(stage_line(stage))]
    if option.nearest is not None:
        said = OPTIONS[option.nearest.first].title if option.nearest.first else "nothing"
        lines += wrapped(f"nearest change: {in_words(option.nearest)} puts {said} first")
    else:
        lines.append("no change of one input was found that puts another first")
    lines.append(f"start from: --preset {option.name}")
    return lines


def stage_line(stage: Stage) -> str:
    held = "" if stage.total_bytes is None else f", {stage.total_bytes / GB:.2f} GB"
    fits = {True: ", fits", False: ", does not fit", None: ""}[stage.fits]
    saved = "".join(f", {name} = {json.dumps(value)}" for name, value in stage.economies.items())
    time = "" if stage.seconds is None else f", {duration(stage.seconds)}"
    return f"run: {stage.name}{held}{fits}{saved}{time}"


def in_words(change: OtherInput | None) -> str:
    if change is None:
        return "none was found"
    was = "not known" if change.was is None else said_value(change.was)
    return f"{change.name} {said_value(change.value)} ({was} now)"


def said_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")
