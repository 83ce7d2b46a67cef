"""`manage.py worker` with another program in the engine's place, or with a point at which it dies.

python -m tests.faults.worker [--engine JSON] [--crash POINT --flag FILE] [ARGUMENT …]
"""

from __future__ import annotations

import argparse
import functools
import json

import django


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", type=json.loads, help="a JSON list: the command of the child")
    parser.add_argument("--crash")
    parser.add_argument("--flag")
    options, arguments = parser.parse_known_args()
    django.setup()

    from django.core.management import call_command

    from tests.faults.crashing import arm
    from training.management.commands import worker

    if options.engine:
        worker.Worker = functools.partial(  # type: ignore[misc,assignment]
            worker.Worker, command=options.engine
        )
    if options.crash:
        arm(options.crash, options.flag)
    call_command("worker", *arguments)


if __name__ == "__main__":
    main()
