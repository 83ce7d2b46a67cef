"""Launching rounds and samplings: everything that can be refused is refused before a job exists."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max

from annotate.formats.canonical import text_problem
from annotate.models import Project, PromptSet, Snapshot
from rlhf_platform.accounts.models import User
from training.engine.config import from_dict, to_dict
from training.engine.errors import ConfigError
from training.errors import CannotLaunch, LaunchKeyReused
from training.models import Job, ModelVersion, Round, Run
from training.services import queueing, rounds
from training.services.presets import LORA, merged
from training.services.versions import adapter_folder

#: What Round.launch_key holds.
MAX_KEY = 64
#: How the fields begin that give PPO another reward than a reward adapter, with their settings.
OTHER_REWARDS = ("reward_url", "reward_model")
SECTIONS = {"seed", "tuning", "adapter", "sft", "reward", "policy", "evaluate", "sample"}
#: Methods of rounds that can train every weight.
FULL_METHODS = (Round.Method.SFT, Round.Method.DPO)


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
    launch_key: str = "",
) -> Round:
    """A new round with its first run queued. Raises CannotLaunch, saying what to change.

    The same `launch_key` with the same settings gives the round that it launched already; with
    other settings it raises LaunchKeyReused. Without a key every call launches.
    """
    check_key(launch_key)
    asked: dict[str, Any] = {
        "project": project,
        "snapshot": snapshot,
        "method": method,
        "reference": reference,
        "fresh_prompts": fresh_prompts,
        "reward_version": reward_version,
        "config": dict(config or {}),
    }
    try:
        with transaction.atomic():
            # The project's row serialises two launches, which would otherwise draw the same number.
            Project.objects.select_for_update().get(pk=project.pk)
            earlier = launched_before(launch_key, **asked)
            return earlier or start_round(**asked, actor=actor, launch_key=launch_key)
    except IntegrityError:
        # The key came at the same moment for another project, whose row is not the one we hold.
        earlier = launched_before(launch_key, **asked)
        if earlier is None:
            raise
        return earlier


def start_round(
    *, project: Project, config: dict[str, Any], actor: User | None, launch_key: str, **asked: Any
) -> Round:
    """Create a round and queue its first run, in the caller's transaction."""
    refuse_round(project=project, config=config, **asked)
    if asked["reward_version"] is not None:
        config = config | {"reward_given": True}
    highest = project.rounds.aggregate(highest=Max("number"))["highest"] or 0
    round = Round.objects.create(
        workspace=project.workspace,
        project=project,
        number=highest + 1,
        config=config,
        created_by=actor,
        launch_key=launch_key,
        **asked,
    )
    for stage in rounds.plan(round):
        rounds.stage_config(round, stage, rehearsal=True)
    rounds.launch_stage(round=round, stage=rounds.plan(round)[0])
    return round


def check_key(key: str) -> None:
    """Raise CannotLaunch for a key that the column does not hold."""
    if len(key) > MAX_KEY:
        raise CannotLaunch(f"the launch key has {len(key)} characters; at most {MAX_KEY} are kept")
    problem = text_problem(key, "the launch key")
    if problem:
        raise CannotLaunch(problem)


def launched_before(
    launch_key: str,
    *,
    project: Project,
    snapshot: Snapshot,
    method: str,
    reference: ModelVersion,
    fresh_prompts: PromptSet,
    reward_version: ModelVersion | None,
    config: dict[str, Any],
) -> Round | None:
    """The round that this key launched; None for a new key. Raises LaunchKeyReused."""
    if not launch_key:
        return None
    earlier = Round.objects.filter(workspace=project.workspace, launch_key=launch_key).first()
    if earlier is None:
        return None
    settings_then = dict(earlier.config)
    # A round that trained its reward model names it too by now; only a given one was asked for.
    given = earlier.reward_version_id if settings_then.pop("reward_given", False) else None
    before = (
        earlier.project_id, earlier.snapshot_id, earlier.method, earlier.reference_id,
        earlier.fresh_prompts_id, given, settings_then,
    )  # fmt: skip
    now = (
        project.pk, snapshot.pk, method, reference.pk, fresh_prompts.pk,
        reward_version.pk if reward_version else None, json.loads(json.dumps(config)),
    )  # fmt: skip
    if before != now:
        raise LaunchKeyReused(
            f"the key was used for another launch, that of {earlier}; "
            "make a new key for a launch with other settings"
        )
    return earlier


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
    if project.kind != Project.Kind.COMPARISONS:
        raise CannotLaunch(
            f"{project} collects {project.kind}, and a round opens its new samples as pairs in its "
            "project, which must be one of comparisons. Train on an exported snapshot of it "
            "instead: python -m training.engine run (labels: method classify)"
        )
    if method not in Round.Method.values:
        raise CannotLaunch(f"method {method!r} is none of {', '.join(Round.Method.values)}")
    unknown = sorted(set(config) - SECTIONS)
    if unknown:
        raise CannotLaunch(f"unknown sections {', '.join(unknown)}; known: {sorted(SECTIONS)}")
    refuse_shapes(config)
    refuse_tuning(method=method, reference=reference, reward_version=reward_version, config=config)
    if not reference.writes:
        raise CannotLaunch(
            f"{reference} is a {reference.get_kind_display().lower()}; "
            "a policy starts from a base or a policy"
        )
    if reward_version is not None and method == Round.Method.SFT:
        raise CannotLaunch("fine-tuning uses no reward model; leave it out, or choose DPO or PPO")
    if reward_version is not None and reward_version.kind != ModelVersion.Kind.REWARD:
        raise CannotLaunch(f"{reward_version} is not a reward model")
    if reward_version is not None and reward_version.base != reference.base:
        raise CannotLaunch("the reward model was trained on another base than the reference")
    if not fresh_prompts.entries.exists():
        raise CannotLaunch(f"{fresh_prompts} holds no prompts; import some with import_prompts")


def refuse_tuning(
    *,
    method: str,
    reference: ModelVersion,
    reward_version: ModelVersion | None,
    config: dict[str, Any],
) -> None:
    """Raise CannotLaunch where a round cannot train as its config's `tuning` says."""
    tuning = config.get("tuning", "lora")
    if tuning not in ("lora", "full"):
        raise CannotLaunch(f"tuning is {tuning!r}; allowed: lora, full")
    if tuning == "lora":
        return
    if method not in FULL_METHODS:
        raise CannotLaunch(
            f"tuning 'full' is for SFT and DPO; {method.upper()} trains an adapter, on a base that "
            "has to stay as it is: choose tuning 'lora'"
        )
    if reward_version is not None or config.get("reward") or config.get("evaluate"):
        raise CannotLaunch(
            "a round with tuning 'full' has no reward model and no evaluation: both are adapters "
            "on the base, which the trained model no longer is. Leave them out; people compare its "
            "answers with the old model's"
        )
    if "adapter" in config:
        raise CannotLaunch("adapter holds settings and tuning is 'full': there is no adapter")
    if reference.adapter_path:
        raise CannotLaunch(
            f"{reference} is an adapter, and tuning 'full' starts from whole weights: choose a "
            "base, a fully trained version, or merge it with python -m training.engine merge and "
            "register that folder as a base"
        )
    if reference.base["quantization"] != "none":
        raise CannotLaunch(
            f"{reference} is held in {reference.base['quantization']}, and quantized weights have "
            "no gradient: choose a base without quantization for tuning 'full'"
        )


def refuse_shapes(config: dict[str, Any]) -> None:
    """Raise CannotLaunch for a section that is no object, or that names a folder to load.

    Which adapter a stage starts from follows from its round: a folder in a config would be read
    with the worker's rights, and could be another workspace's.
    """
    for name, section in config.items():
        if name in ("seed", "tuning") or (section is None and name != "adapter"):
            continue
        if not isinstance(section, dict):
            raise CannotLaunch(f"{name} must be an object of settings, not {section!r}")
        if name in SECTIONS - {"adapter"}:
            refuse_overruled(name, section)
        inner = [value for value in section.values() if isinstance(value, dict)]
        for field in {field for part in [section, *inner] for field in part}:
            if field == "init_from" or field.endswith("_adapter"):
                raise CannotLaunch(f"{name}: {field} is set by the round itself; leave it out")


def refuse_overruled(stage: str, section: dict[str, Any]) -> None:
    """Raise CannotLaunch for what `stage_config` would overrule without a word."""
    for field in ("adapter", "seed"):
        if field in section:
            raise CannotLaunch(
                f"{stage}: {field} is one for the whole round; give it beside the stages"
            )
    if section.get("tuning", "lora") != "lora":
        raise CannotLaunch(
            f"{stage}: tuning is one for the whole round; give it beside the stages, as "
            f'{{"tuning": {json.dumps(section["tuning"])}}}'
        )
    for field in ("method", "threads", "base"):
        if field in section:
            raise CannotLaunch(f"{stage}: {field} is set by the round itself; leave it out")
    refuse_other_rewards(stage, section)


def refuse_other_rewards(stage: str, section: dict[str, Any]) -> None:
    """Raise CannotLaunch for PPO's rewards from elsewhere (`ppo.reward_url`, `ppo.reward_model`).

    The engine would say that two sources are given, of which the person knows one.
    """
    inner = [value for value in section.values() if isinstance(value, dict)]
    for field in (field for part in [section, *inner] for field in part):
        if field.startswith(OTHER_REWARDS):
            raise CannotLaunch(
                f"{stage}: {field} is not for rounds: a round scores with its own reward model, "
                "which it trains on its snapshot or takes from an earlier round, and by which it "
                f"measures the new policy against the old. Leave {field} out; to choose the reward "
                "model, name it where the round is launched (reward_version); for a reward from "
                "elsewhere train with python -m training.engine run (docs/methods/ppo.md)"
            )


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
    if project.kind != Project.Kind.COMPARISONS:
        raise CannotLaunch(
            f"{project} collects {project.kind}; answers are compared in another project"
        )
    if not version.writes:
        raise CannotLaunch(
            f"{version} is a {version.get_kind_display().lower()}; it does not answer prompts"
        )
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
