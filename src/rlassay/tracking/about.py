"""What MLflow is told about each run of a study, apart from its metrics."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlassay.config.fingerprints import evaluation_id, recipe_id
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.tracking.names import ARM, SEED, legal_name

# MERGED FROM tracking.params: A study's sections as flat MLflow params: the same keys on every run, numbers
# wherever they can be. Parallel coordinates leave out a run that lacks a param, so a reward that an arm does
# not use has weight 0.0 and a section that a run does not have says `none`.


def run_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of one policy's runs."""
    return _params(study, policy, _seed(policy))


def parent_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of the parent run over the seeds of `policy`."""
    return _params(study, policy, None)


def _params(study: Study, policy: Policy, seed: int | None) -> dict[str, str]:
    sections = {"model": ("model",), "sft": ("model", "sft")}
    keys = dict.fromkeys(key for arm in study.arms.values() for key, _ in _recipe(arm.recipe))
    own = dict(_recipe(policy.recipe))
    if policy.stage != "rl":
        own = {key: value for key, value in own.items() if key.split(".")[0] in sections[policy.stage]}
    shared = {"seed": seed, "gpus": study.gpus, **dict(_flat("data", study.data.model_dump(mode="json")))}
    shared |= dict(_flat("evaluation", study.evaluation.model_dump(mode="json")))
    unused = dict.fromkeys(keys) | {f"reward.{name}": 0.0 for name in study.rewards}
    return {legal_name(key): _text(value) for key, value in (shared | unused | own).items()}


def _seed(policy: Policy) -> int | None:
    """The seed that a policy was trained with; None for a model that was not trained."""
    if policy.stage == "sft" and policy.seed is None and policy.recipe.sft is not None:
        return policy.recipe.sft.seed
    return policy.seed


def _recipe(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Key and value of everything in a recipe; `rl.epsilon_high` says what null stands for, so that it is a number."""
    content = recipe.model_dump(mode="json")
    content["rl"]["epsilon_high"] = recipe.rl.epsilon if recipe.rl.epsilon_high is None else recipe.rl.epsilon_high
    for key, value in content.items():
        if key == "rewards":
            yield from _rewards(value)
        elif key == "credit":
            yield "credit", [part["kind"] for part in value]
            for part in value:
                yield from _flat(f"credit.{part.pop('kind')}", part)
        else:
            yield from _flat(key, value)


def _rewards(rewards: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, reward in rewards.items():
        yield f"reward.{name}", reward["weight"]
        if reward["early_weight"] is not None:
            yield f"reward_early.{name}", reward["early_weight"]
        if reward["schedule"]:
            yield f"reward_schedule.{name}", [f"{start:g}:{weight:g}" for start, weight in reward["schedule"]]
        yield from _flat(f"reward.{name}", reward["options"])


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    else:
        yield path, value


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return ",".join(_text(inner) for inner in value) or "none"
    return str(value)


# MERGED FROM tracking.about: What MLflow is told about each run of a study, apart from its metrics.

PARENT_STAGES = {"model": "model", "sft": "warm start", "rl": "arm"}


@dataclass(frozen=True, kw_only=True)
class About:
    """One MLflow run: whose results it shows, and under which names."""

    name: str
    """What the lists of `mlflow ui` show."""
    policy: str
    """Folder of the policy; with `stage` it says whose results the run shows."""
    stage: str
    """`sft`, `rl`, `evaluation`, `report`, or the stage of a parent run."""
    identity: str
    """Which of all results that this policy and stage ever had."""
    params: dict[str, str]
    """Flat, in MLflow's names."""
    tags: dict[str, str]
    """Besides those that `policy`, `stage` and `identity` become."""
    parent: "About | None" = None
    """The run that it is listed under."""


def about_training(study: Study, policy: Policy, identity: str) -> About:
    """The run of one training job; `identity` is that of its progress."""
    return _child(study, policy, policy.stage, identity)


def about_evaluation(study: Study, policy: Policy, identity: str) -> About:
    """The run of one policy's evaluation; `identity` is that of its training, or of the untrained model."""
    return _child(study, policy, "evaluation", f"{identity}@{evaluation_id(study, policy.recipe)}")


def about_parent(study: Study, policy: Policy) -> About:
    """The run over all seeds of an arm, of a warm start, or of a model before training."""
    # An arm's seeds differ in their fingerprints; what arms share may come from any of their recipes.
    made_from = recipe_id(policy.recipe) if policy.stage == "rl" else policy.fingerprint
    return About(
        name=_subject(policy),
        policy="/".join(policy.folder.split("/")[:2]),
        stage=PARENT_STAGES[policy.stage],
        identity=f"{made_from}@{evaluation_id(study, policy.recipe)}",
        params=parent_params(study, policy),
        tags={} if policy.arm is None else {ARM: policy.arm},
    )


def about_report() -> About:
    """The run that carries the report."""
    return About(name="report", policy="report", stage="report", identity="report", params={}, tags={})


def _child(study: Study, policy: Policy, stage: str, identity: str) -> About:
    parent = about_parent(study, policy)
    seed = "" if policy.seed is None else f" seed {policy.seed}"
    return About(
        name=f"{_subject(policy)}{seed} {stage}",
        policy=policy.folder,
        stage=stage,
        identity=identity,
        params=run_params(study, policy),
        tags=parent.tags | ({} if policy.seed is None else {SEED: str(policy.seed)}),
        parent=parent,
    )


def _subject(policy: Policy) -> str:
    made_from = policy.folder.split("/")[1]
    return policy.arm or f"{PARENT_STAGES[policy.stage]} {made_from}"
