"""`python -m training.engine plan`: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.engine.config import METHODS, RunConfig, from_dict
from training.engine.errors import ConfigError, UsageError
from training.engine.planner import Plan, any_section, plan, with_settings
from training.engine.planner_memory import GIB
from training.engine.planner_shapes import BaseShape, read_shape, shape_of_source

EXIT_DONE, EXIT_FAILED = 0, 1
GB = 1e9


def add_command(commands: Any) -> None:
    """Add `plan` to the engine's commands."""
    command = commands.add_parser(
        "plan",
        help="memory and time of a run before it is launched",
        description="Says what a run will need, part by part, whether that fits on a device, and "
        "the smallest change that makes it fit. The base is known by its config.json alone: "
        "nothing is downloaded, nothing loaded. Exit status 1 where it does not fit.",
    )
    what = command.add_argument_group("what to plan")
    what.add_argument("--config", type=Path, metavar="RUN_CONFIG", help="a run's config.json")
    what.add_argument(
        "--base", type=Path, metavar="CONFIG_JSON", help="a model's config.json, or its folder"
    )
    what.add_argument("--method", choices=METHODS, help="with --base: what to do with it")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the run, such as base.quantization=nf4 or row_budget=1024; repeatable",
    )
    where = command.add_argument_group("where it runs")
    where.add_argument("--device-gb", type=float, metavar="N", help="memory of the device, in GB")
    where.add_argument(
        "--device", choices=("gpu", "cpu"), default="gpu", help="default: %(default)s"
    )
    where.add_argument("--tflops", type=float, metavar="N", help="10¹² operations a second")
    where.add_argument("--gb-per-s", type=float, metavar="N", help="weights read a second, for "
                       "the time that answers take")  # fmt: skip
    where.add_argument("--rows", type=int, metavar="N", help="training rows or prompts")
    where.add_argument("--longest", type=int, metavar="N", help="tokens of the longest row")
    where.add_argument("--mean", type=float, metavar="N", help="tokens of a row on average")
    other = command.add_argument_group("other")
    other.add_argument(
        "--check",
        action="store_true",
        help="compare the planner with every published and measured number; 1 where one that "
        "follows by counting differs",
    )
    other.add_argument(
        "--calibrate",
        nargs="+",
        type=Path,
        metavar="RUN_DIR",
        help="compare the planner with the memory that finished runs took",
    )
    other.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Do what the options of `plan` say. Returns the exit status; raises EngineError."""
    if options.check:
        return check(as_json=options.json)
    if options.calibrate:
        return calibrate(options.calibrate, options.base, as_json=options.json)
    from training.engine.planner import Lengths

    config, shape = asked(options)
    for name in ("device_gb", "tflops", "gb_per_s", "rows", "longest", "mean"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e15:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
    found = plan(
        config,
        shape,
        None if options.device_gb is None else int(options.device_gb * GB),
        lengths=Lengths(longest=options.longest, mean=options.mean, rows=options.rows),
        device=options.device,
        flops_per_s=options.tflops * 1e12 if options.tflops else None,
        bytes_per_s=options.gb_per_s * GB if options.gb_per_s else None,
    )
    if options.json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        print(as_table(found))
    return EXIT_FAILED if found.fits is False else EXIT_DONE


def asked(options: argparse.Namespace) -> tuple[RunConfig, BaseShape]:
    """The run and its base. Raises UsageError where they are not both named."""
    if options.config is None and (options.base is None or options.method is None):
        raise UsageError(
            "plan needs --config RUN_CONFIG, or --base CONFIG_JSON with --method (or --check, or "
            "--calibrate RUN_DIR)"
        )
    if options.config is not None:
        try:
            data = json.loads(options.config.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{options.config} cannot be read: {error.strerror}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.config} is not JSON: {error}") from None
    else:
        base = {"source": str(options.base)}
        data = {"method": options.method, "base": base, **any_section(options.method)}
    if not isinstance(data, dict):
        raise ConfigError("config.json must hold one JSON object")
    config = from_dict(with_settings(data, dict(setting(text) for text in options.set)))
    if options.base is not None:
        return config, read_shape(options.base)
    return config, shape_of_source(config.base.source)


def setting(text: str) -> tuple[str, Any]:
    """`name=value` as (name, value); a value that is no JSON is text. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--set {text}: give NAME=VALUE, such as row_budget=1024")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def check(*, as_json: bool) -> int:
    from training.engine.planner_check import failed, rows, table

    found = rows()
    if as_json:
        print(json.dumps([row.as_json() for row in found], indent=2, ensure_ascii=False))
    else:
        print(table(found))
    return EXIT_FAILED if failed(found) else EXIT_DONE


def calibrate(folders: list[Path], base: Path | None, *, as_json: bool) -> int:
    from training.engine import planner_calibrate

    shape = read_shape(base) if base is not None else None
    found = [planner_calibrate.calibrate(folder, shape) for folder in folders]
    if as_json:
        print(json.dumps([each.as_json() for each in found], indent=2, ensure_ascii=False))
    else:
        print(planner_calibrate.table(found))
    return EXIT_DONE


def as_table(found: Plan) -> str:
    """A plan as lines for a terminal."""
    lines = [
        f"{found.method} on a {'GPU' if found.device == 'gpu' else 'processor'}: "
        f"{found.parameters:,} parameters, {found.trained:,} trained, "
        f"{found.tokens:,} tokens at once",
        f"most is needed in the phase “{found.phase}”",
        "",
        f"{'part':<26} {'GiB':>9}  how",
    ]
    lines += [f"{term.name:<26} {term.bytes / GIB:>9.3f}  {term.how}" for term in found.terms]
    lines.append(f"{'total':<26} {found.total_bytes / GIB:>9.3f}  {found.total_bytes / GB:.2f} GB")
    if found.host_bytes:
        lines.append(
            f"{'processor, paged':<26} {found.host_bytes / GIB:>9.3f}  moments beside the device"
        )
    others = ", ".join(f"{name} {size / GIB:.2f}" for name, size in found.phases.items())
    lines += ["", f"phases (GiB): {others}", *time_lines(found), *fitting_lines(found)]
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines)


def time_lines(found: Plan) -> list[str]:
    time = found.time
    said = f"one step: {time.tokens_per_step:,} tokens, {time.flops_per_step:.3g} operations"
    if time.seconds_per_step is not None:
        said += f", {time.seconds_per_step:.2f} s"
    lines = [said]
    if time.steps is not None:
        whole = f"{time.steps:,} steps: {time.flops:.3g} operations"
        lines.append(whole + (f", {duration(time.seconds)}" if time.seconds is not None else ""))
    return [*lines, f"({time.note})"]


def duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def fitting_lines(found: Plan) -> list[str]:
    if found.device_bytes is None:
        return []
    device = f"{found.device_bytes / GB:.1f} GB"
    if found.fits:
        spare = found.device_bytes - found.total_bytes
        return [f"fits in {device}, with {spare / GB:.2f} GB to spare"]
    lines = [
        f"does not fit in {device}: {(found.total_bytes - found.device_bytes) / GB:.2f} GB over"
    ]
    if found.change is not None:
        named = ", ".join(f"{k} = {json.dumps(v)}" for k, v in found.change.settings.items())
        lines.append(f"it fits with {named}: {found.change.total_bytes / GB:.2f} GB")
    else:
        least = min((each.total_bytes for each in found.tried), default=found.total_bytes)
        lines.append(
            f"no setting makes it fit: {least / GB:.2f} GB at the least; take a smaller base or a "
            "larger device"
        )
    return lines
