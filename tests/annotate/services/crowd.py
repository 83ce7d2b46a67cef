"""Many people at once: threads with connections of their own, and a whole project judged by eight.

Run as a module it judges on the database that DATABASE_URL names and prints what came of it.
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
    from django.db import connections

    barrier = threading.Barrier(count)
    outcomes: list[object] = [None] * count

    def one(index: int) -> None:
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


if __name__ == "__main__":
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, stdout=sys.stderr)
    print(json.dumps(judge_everything()))
