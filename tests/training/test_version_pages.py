"""The registry, and the page of one version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import Client

from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_prompt_set, make_round, make_run, make_version
from training.models import Job, Run


def test_the_list_groups_by_project_and_names_one_figure_each(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    make_version(people.workspace, "the base")
    for number in range(5):
        make_version(
            people.workspace,
            f"reward {number}",
            kind="reward",
            project=project,
            metrics={
                "loss/train": 0.6,
                "reward/accuracy": 0.7,
                "reward/accuracy_low": 0.6,
                "reward/accuracy_high": 0.8,
            },
        )
    client.force_login(people.rita)
    with django_assert_max_num_queries(6):
        page = client.get("/models/").content.decode()
    assert page.index(">Bases<") < page.index(">Helpful<")
    assert "[0.600 to 0.800]" in page


def test_a_version_shows_its_line_its_files_and_what_came_of_it(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    round = make_round(project)
    run = make_run(round, state="succeeded")
    version = make_version(
        people.workspace, "dpo", kind="policy", project=project, parent=round.reference, run=run
    )
    make_version(people.workspace, "child", kind="policy", project=project, parent=version)
    folder = Path(settings.RUNS_DIR) / version.adapter_path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "link").symlink_to("/etc/hostname")
    client.force_login(people.rita)
    with django_assert_max_num_queries(22):
        page = client.get(f"/models/{version.pk}/").content.decode()
    # The SHA-256 of "{}".
    assert "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" in page
    assert "adapter_config.json" in page
    assert ">link<" not in page
    assert f"snapshots/{round.snapshot.number}/" in page
    assert ">child<" in page


def test_sampling_is_launched_from_a_version(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    prompts = make_prompt_set(people.workspace)
    version = make_version(people.workspace)
    client.force_login(people.rita)
    reply = client.post(f"/models/{version.pk}/", {"project": project.pk, "prompt_set": prompts.pk})
    run = Run.objects.get()
    assert reply.headers["Location"] == f"/runs/{run.pk}/"
    assert (run.version, run.job.state) == (version, Job.State.QUEUED)
    assert client.get(f"/runs/{run.pk}/").status_code == 200


def test_a_reward_model_answers_no_prompts(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    prompts = make_prompt_set(people.workspace)
    version = make_version(people.workspace, "r", kind="reward")
    client.force_login(people.rita)
    asked = {"project": project.pk, "prompt_set": prompts.pk}
    assert client.post(f"/models/{version.pk}/", asked).status_code == 422
    assert not Run.objects.exists()
    assert "Let it answer" not in client.get(f"/models/{version.pk}/").content.decode()


def test_another_workspaces_prompts_are_no_choice(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    theirs = make_prompt_set(people.elsewhere)
    version = make_version(people.workspace)
    client.force_login(people.rita)
    asked = {"project": project.pk, "prompt_set": theirs.pk}
    assert client.post(f"/models/{version.pk}/", asked).status_code == 422
    assert not Run.objects.exists()
