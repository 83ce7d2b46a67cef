"""Many people at once: threads with connections of their own, a whole project judged by eight, and
the last comparison that fifty ask for.

Run as a module it does both on the database that DATABASE_URL names, and prints what came of it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from annotate.formats.texts import TextRecord


def in_parallel(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in that many threads at once; returns results, or the exceptions they raised."""
    from django.db import connection, connections

    barrier, one_by_one = threading.Barrier(count), threading.Lock()
    outcomes: list[object] = [None] * count

    def one(index: int) -> None:
        # Connected before they start: a busy machine would have them wait for their connections.
        with one_by_one:
            connection.ensure_connection()
        barrier.wait()
        try:
            outcomes[index] = work(index)
        except Exception as error:
            outcomes[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def text_record(number: int) -> TextRecord:
    return TextRecord(number, [{"role": "user", "content": f"Text {number}"}])


def judge_everything(
    people: int = 8, comparisons: int = 40, overlap: int = 3, *, labels: bool = False
) -> dict[str, Any]:
    """Everyone asks and answers until nothing is left for them; then count."""
    from annotate.models import Annotator, Comparison, Judgment
    from annotate.services.judging import submit_judgment
    from annotate.services.labels import labels_from_text
    from annotate.services.serving import next_assignment
    from annotate.services.texts import store_texts
    from tests.factories import make_annotator, make_comparison, make_project
    from tests.people import make_people

    workspace = make_people().workspace
    project = make_project(workspace, overlap=overlap, kind="labels" if labels else "comparisons")
    if labels:
        project.guidelines.update(labels=labels_from_text("yes\nno"))
        store_texts(project=project, records=[text_record(number) for number in range(comparisons)])
    for number in range(0 if labels else comparisons):
        make_comparison(project, prompt=f"Question {number}?")
    crowd: list[Annotator] = [make_annotator(workspace, name=f"person {n}") for n in range(people)]

    def work(index: int) -> int:
        done = 0
        while assignment := next_assignment(project=project, annotator=crowd[index]):
            submit_judgment(
                assignment=assignment,
                annotator=crowd[index],
                answer="yes" if labels else "left",
                idempotency_key=f"{index}-{done}",
            )
            done += 1
        return done

    outcomes = in_parallel(people, work)
    pairs = list(Judgment.objects.values_list("comparison_id", "annotator_id"))
    per_comparison = [pairs_of.judgments.count() for pairs_of in Comparison.objects.all()]
    return {
        "errors": [repr(one) for one in outcomes if isinstance(one, Exception)],
        "judgments": len(pairs),
        "repeated": len(pairs) - len(set(pairs)),
        "per_comparison": sorted(set(per_comparison)),
        "open_slots": sum(Comparison.objects.values_list("slots", flat=True)),
    }


def judge_the_last(people: int = 50, overlap: int = 3) -> dict[str, Any]:
    """One comparison is left and all ask at once, twice; whoever got it answers; then count."""
    from annotate.models import Annotator
    from annotate.services.judging import submit_judgment
    from annotate.services.serving import next_assignment
    from rlhf_platform.accounts.models import Workspace
    from tests.annotate.services.leases import overlap_holds
    from tests.factories import make_annotator, make_comparison, make_project

    workspace = Workspace.objects.create(slug="last", name="Last")
    project = make_project(workspace, overlap=overlap)
    comparison = make_comparison(project)
    crowd: list[Annotator] = [make_annotator(workspace, name=f"person {n}") for n in range(people)]

    def ask(index: int) -> bool:
        return next_assignment(project=project, annotator=crowd[index]) is not None

    def ask_and_answer(index: int) -> bool:
        held = next_assignment(project=project, annotator=crowd[index])
        if held is not None:
            submit_judgment(
                assignment=held, annotator=crowd[index], answer="left", idempotency_key="k"
            )
        return held is not None

    first, second = in_parallel(people, ask), in_parallel(people, ask_and_answer)
    return {
        "errors": [repr(one) for one in first + second if isinstance(one, Exception)],
        "served": first.count(True),
        "served again": second.count(True),
        "judged by": comparison.judgments.values("annotator").distinct().count(),
        "judgments": comparison.judgments.count(),
        "overlap holds": overlap_holds(comparison),
        "open_slots": comparison.slots,
    }


if __name__ == "__main__":
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, stdout=sys.stderr)
    print(json.dumps([judge_everything(), judge_the_last()]))
