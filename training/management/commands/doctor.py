from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from rlhf_platform.doctor import ground_floor
from rlhf_platform.doctor.findings import Finding, examine
from training.services import checkups

CHECKS = {check.name: check for check in (*ground_floor.CHECKS, *checkups.CHECKS)}


class Command(BaseCommand):
    help = "Look at everything the platform rests on, and say how to mend what is not right."
    #: They need what the doctor is there to look at.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="a list of findings, for programs")
        parser.add_argument(
            "--only", nargs="+", choices=list(CHECKS), metavar="CHECK", help=", ".join(CHECKS)
        )

    def handle(self, *args: Any, **options: Any) -> None:
        only = options["only"] or list(CHECKS)
        # Client libraries log what they meet, with traces; here the findings say it.
        logging.disable(logging.CRITICAL)
        try:
            found = examine([check for name, check in CHECKS.items() if name in only])
        finally:
            logging.disable(logging.NOTSET)
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in found], indent=2))
        else:
            for finding in found:
                self.stdout.write(self.line(finding))
        bad = sum(finding.level == "bad" for finding in found)
        if bad:
            raise CommandError(f"{bad} of {len(found)} findings {'is' if bad == 1 else 'are'} bad")

    def line(self, finding: Finding) -> str:
        styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "bad": self.style.ERROR}
        text = f"{styles[finding.level](f'{finding.level:<8}')} {finding.check}: {finding.said}"
        return f"{text}. To mend it: {finding.mend}." if finding.mend else f"{text}."
