from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotate.selectors.judges import accepted_calibration, calibration_figures
from annotate.selectors.lookup import find_judge, find_project
from annotate.services.machine_judging import accept_calibration
from rlhf_platform.accounts.models import User
from training.engine.packaged import BASES
from training.management.base import TrainingCommand
from training.services.machine_judging import BOUNDS, judge_from, let_judge

#: What names a judge anew; without any of these the newest version of --name is meant.
OWN = ("url", "model", "base", "adapter", "rubric", "how", "max_new_tokens")


class Command(TrainingCommand):
    help = "Let a language model judge a project's comparisons, apart from people's judgments."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument("--name", required=True, help="the judge: NAME or NAME:VERSION")
        parser.add_argument(
            "--url", help="OpenAI-compatible server, up to /v1 (key: JUDGE_API_KEY)"
        )
        parser.add_argument("--model", help="the model's name on that server")
        parser.add_argument("--base", help=f"or a base: {BASES}")
        parser.add_argument("--adapter", help="folder of an adapter on the base")
        parser.add_argument("--rubric", type=Path, help="file with the rubric's text")
        parser.add_argument("--how", choices=("verdict", "letters"))
        parser.add_argument("--max-new-tokens", type=int)
        parser.add_argument("--limit", type=int, help="at most so many comparisons")
        parser.add_argument(
            "--by-people", action="store_true", help="only what people judged, for a calibration"
        )
        parser.add_argument("--requests-per-minute", type=float)
        parser.add_argument("--timeout-s", type=float)
        parser.add_argument("--retries", type=int)
        parser.add_argument("--max-tokens-total", type=int, help="budget in tokens")
        parser.add_argument("--max-cost", type=float, help="budget in money")
        parser.add_argument("--price-in", type=float, help="of a million tokens asked")
        parser.add_argument("--price-out", type=float, help="of a million tokens answered")
        parser.add_argument("--numbers", action="store_true", help="only show the calibration")
        parser.add_argument(
            "--accept-as", metavar="EMAIL", help="accept the calibration shown, as this admin"
        )
        parser.add_argument("--reason", default="", help="with --accept-as: why it is enough")
        self.add_workspace_argument(parser)

    def work(self, **options: Any) -> None:
        project = find_project(options["project"], workspace=options["workspace"])
        if any(options[name] is not None for name in OWN):
            judge = judge_from(project=project, name=options["name"], config=self.config(options))
        else:
            judge = find_judge(options["name"], workspace=options["workspace"])
        self.stdout.write(f"{judge} (digest {judge.digest[:12]})")
        if not options["numbers"] and not options["accept_as"]:
            bounds = {name: options[name] for name in BOUNDS if options[name] is not None}
            found = let_judge(
                judge=judge,
                project=project,
                limit=options["limit"],
                by_people=options["by_people"],
                bounds=bounds,
            )
            self.stdout.write(f"stored {found.stored} judgments")
            for name, value in found.metrics.items():
                self.stdout.write(f"  {name} {value:.6g}")
            if found.stopped:
                self.stdout.write(found.stopped)
        self.show(judge, project)
        if options["accept_as"]:
            actor = User.objects.filter(email=options["accept_as"]).first()
            if actor is None:
                raise CommandError(f"there is no account {options['accept_as']!r}")
            made = accept_calibration(
                judge=judge, project=project, actor=actor, reason=options["reason"]
            )
            self.stdout.write(f"accepted on {made.n} comparisons")

    def config(self, options: dict[str, Any]) -> dict[str, Any]:
        """The engine's settings for the judge that the options describe."""
        judge = {
            name: options[name]
            for name in ("url", "model", "how", "max_new_tokens")
            if options[name] is not None
        }
        if options["rubric"] is not None:
            try:
                judge["rubric"] = options["rubric"].read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{options['rubric']} cannot be read: {error}") from error
        source = "none" if options["url"] else options["base"] or "demo"
        adapter = {"init_from": options["adapter"]} if options["adapter"] else {}
        return {"base": {"source": source}, "adapter": adapter, "judge": judge}

    def show(self, judge: Any, project: Any) -> None:
        """The judge against people, with 95 % intervals."""
        figures = calibration_figures(judge=judge, project=project)
        self.stdout.write(f"against people, on {figures.agreement.n} comparisons:")
        for name in (
            "agreement", "kappa", "decided", "first_place", "machine_longer", "person_longer",
            "longer_difference",
        ):  # fmt: skip
            figure = getattr(figures, name)
            value = "not defined" if figure.value is None else f"{figure.value:.3f}"
            interval = "" if figure.low is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
            self.stdout.write(f"  {name} {value}{interval}, n = {figure.n}")
        accepted = accepted_calibration(judge=judge, project=project)
        state = f"accepted on {accepted.n} comparisons" if accepted else "not accepted"
        self.stdout.write(f"calibration: {state}")
