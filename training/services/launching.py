"""Launching rounds and samplings: everything that can be refused is refused before a job exists."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from annotate.models import Project, PromptSet, Snapshot
from rlhf_platform.accounts.models import User
from training.engine.config import from_dict, to_dict
from training.engine.errors import ConfigError
from training.errors import CannotLaunch
from training.models import Job, ModelVersion, Round, Run
from training.services import queueing, rounds
from training.services.presets import LORA, merged
from training.services.versions import adapter_folder

SECTIONS = {"seed", "adapter", "sft", "reward", "policy", "evaluate", "sample"}


def launch_round(
    *,
    project: Project,
    snapshot: Snapshot,
    method: str,
    reference: ModelVersion,
    fresh_prompts: PromptSet,
    reward_version: ModelVersion | None = None,
    config: dict[str, Any] | None = None,
    actor: User | None = None,
) -> Round:
    """A new round with its first run queued. Raises CannotLaunch, saying what to change."""
    config = dict(config or {})
    refuse_round(
        project=project,
        snapshot=snapshot,
        method=method,
        reference=reference,
        fresh_prompts=fresh_prompts,
        reward_version=reward_version,
        config=config,
    )
    if reward_version is not None:
        config["reward_given"] = True
    with transaction.atomic():
        # The project's row serialises two launches, which would otherwise draw the same number.
        Project.objects.select_for_update().get(pk=project.pk)
        highest = project.rounds.aggregate(highest=Max("number"))["highest"] or 0
        round = Round.objects.create(
            workspace=project.workspace,
            project=project,
            number=highest + 1,
            snapshot=snapshot,
            method=method,
            reference=reference,
            reward_version=reward_version,
            fresh_prompts=fresh_prompts,
            config=config,
            created_by=actor,
        )
        for stage in rounds.plan(round):
            rounds.stage_config(round, stage, rehearsal=True)
        rounds.launch_stage(round=round, stage=rounds.plan(round)[0])
    return round


def refuse_round(
    *,
    project: Project,
    snapshot: Snapshot,
    method: str,
    reference: ModelVersion,
    fresh_prompts: PromptSet,
    reward_version: ModelVersion | None,
    config: dict[str, Any],
) -> None:
    """Raise CannotLaunch for what no run could make good."""
    for name, thing in (
        ("snapshot", snapshot),
        ("reference", reference),
        ("prompt set", fresh_prompts),
        ("reward model", reward_version),
    ):
        if thing is not None and thing.workspace_id != project.workspace_id:
            raise CannotLaunch(f"the {name} belongs to another workspace")
    if snapshot.project_id != project.pk:
        raise CannotLaunch(f"{snapshot} belongs to another project")
    if method not in Round.Method.values:
        raise CannotLaunch(f"method {method!r} is none of {', '.join(Round.Method.values)}")
    unknown = sorted(set(config) - SECTIONS)
    if unknown:
        raise CannotLaunch(f"unknown sections {', '.join(unknown)}; known: {sorted(SECTIONS)}")
    refuse_shapes(config)
    if reference.kind == ModelVersion.Kind.REWARD:
        raise CannotLaunch(
            f"{reference} is a reward model; a policy starts from a base or a policy"
        )
    if reward_version is not None and method == Round.Method.SFT:
        raise CannotLaunch("fine-tuning uses no reward model; leave it out, or choose DPO or PPO")
    if reward_version is not None and reward_version.kind != ModelVersion.Kind.REWARD:
        raise CannotLaunch(f"{reward_version} is not a reward model")
    if reward_version is not None and reward_version.base != reference.base:
        raise CannotLaunch("the reward model was trained on another base than the reference")
    if not fresh_prompts.entries.exists():
        raise CannotLaunch(f"{fresh_prompts} holds no prompts; import some with import_prompts")


def refuse_shapes(config: dict[str, Any]) -> None:
    """Raise CannotLaunch for a section that is no object, or that names a folder to load.

    Which adapter a stage starts from follows from its round: a folder in a config would be read
    with the worker's rights, and could be another workspace's.
    """
    for name, section in config.items():
        if name == "seed" or (section is None and name != "adapter"):
            continue
        if not isinstance(section, dict):
            raise CannotLaunch(f"{name} must be an object of settings, not {section!r}")
        inner = [value for value in section.values() if isinstance(value, dict)]
        for field in {field for part in [section, *inner] for field in part}:
            if field == "init_from" or field.endswith("_adapter"):
                raise CannotLaunch(f"{name}: {field} is set by the round itself; leave it out")


def launch_sampling(
    *,
    project: Project,
    version: ModelVersion,
    prompt_set: PromptSet,
    config: dict[str, Any] | None = None,
) -> Run:
    """Queue answers of `version` to every prompt of the set; their pairs open in `project`.

    Raises CannotLaunch for a reward model, an empty set, another workspace, or impossible settings.
    """
    if {version.workspace_id, prompt_set.workspace_id} != {project.workspace_id}:
        raise CannotLaunch("version, prompt set and project must belong to one workspace")
    if version.kind == ModelVersion.Kind.REWARD:
        raise CannotLaunch(f"{version} is a reward model; it does not answer prompts")
    if not prompt_set.entries.exists():
        raise CannotLaunch(f"{prompt_set} holds no prompts; import some with import_prompts")
    refuse_shapes({"config": config or {}})
    try:
        checked = to_dict(
            from_dict(
                {
                    **merged("sample", config or {}),
                    "method": "sample",
                    "threads": settings.TRAINING_THREADS,
                    "base": version.base,
                    "adapter": {**LORA, "init_from": adapter_folder(version)},
                }
            )
        )
    except ConfigError as error:
        raise CannotLaunch(str(error)) from error
    with transaction.atomic():
        run = Run.objects.create(
            workspace=project.workspace,
            method=Run.Method.SAMPLE,
            config=checked,
            folder=f"sampling/{uuid.uuid4().hex[:12]}",
            version=version,
        )
        queueing.enqueue(
            kind=Job.Kind.RUN,
            queue=Job.Queue.SAMPLING,
            workspace=project.workspace,
            run=run,
            payload={"prompt_set": prompt_set.pk, "project": project.pk},
        )
    return run
