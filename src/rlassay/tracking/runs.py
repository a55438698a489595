"""The MLflow runs of a study: their names, tags and params.

Params are a study's sections, flattened. Every run has the same keys, with numbers where possible, because MLflow's
parallel coordinates leave out a run that lacks a param: a reward that an arm does not use has weight 0.0, and a section
that does not apply to a run is `none`. Only the weights of the rewards are absent from models, references and warm
starts, which no reward trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from rlassay.config.fingerprints import evaluation_id, recipe_id
from rlassay.config.policies import Policy, label_of, policies
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.tracking.names import ARM, ARM_LABEL, SEED, legal_name

PARENT_STAGES = {"model": "model", "reference": "reference", "sft": "warm start", "rl": "arm"}
SECTIONS = {"model": ("model",), "reference": ("model",), "sft": ("model", "sft")}
"""Sections of the recipe that a policy's weights depend on, by its stage; all of them after RL."""


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """Identity, name, params and tags of one MLflow run."""

    name: str
    """Name in the lists of `mlflow ui`."""
    policy: str
    """Folder of the policy whose results the run shows."""
    stage: str
    """`sft`, `rl`, `evaluation`, `report`, or the stage of a parent run."""
    identity: str
    """Identity of the results of this policy and stage; a training from step 0 gets a new one."""
    params: dict[str, str]
    """Params, under names that MLflow accepts."""
    tags: dict[str, str]
    """Tags besides those made from `policy`, `stage` and `identity`."""
    parent: "RunDescription | None" = None
    """The parent run."""


def training_run(study: Study, policy: Policy, identity: str) -> RunDescription:
    """The run of one training job; `identity` is that of its progress."""
    return _child(study, policy, policy.stage, identity)


def evaluation_run(study: Study, policy: Policy, identity: str) -> RunDescription:
    """The run of one policy's evaluation; `identity` is that of its training, or of the untrained model."""
    return _child(study, policy, "evaluation", f"{identity}@{evaluation_id(study, policy.recipe)}")


def parent_run(study: Study, policy: Policy) -> RunDescription:
    """The run over all seeds of an arm, a warm start or an untrained model."""
    # Seeds of an arm have different fingerprints; a shared warm start or model may come from several recipes.
    origin = recipe_id(policy.recipe) if policy.stage == "rl" else policy.fingerprint
    return RunDescription(
        name=label_of(study, policy, policies(study).values()),
        policy=policy.stem,
        stage=PARENT_STAGES[policy.stage],
        identity=f"{origin}@{evaluation_id(study, policy.recipe)}",
        params=parent_params(study, policy),
        tags={} if policy.arm is None else {ARM: policy.arm, ARM_LABEL: study.arms[policy.arm].label},
    )


def report_run() -> RunDescription:
    """The run that contains the report."""
    return RunDescription(name="report", policy="report", stage="report", identity="report", params={}, tags={})


def _child(study: Study, policy: Policy, stage: str, identity: str) -> RunDescription:
    parent = parent_run(study, policy)
    seed = "" if policy.seed is None else f" seed {policy.seed}"
    return RunDescription(
        name=f"{parent.name}{seed} {stage}",
        policy=policy.folder,
        stage=stage,
        identity=identity,
        params=run_params(study, policy),
        tags=parent.tags | ({} if policy.seed is None else {SEED: str(policy.seed)}),
        parent=parent,
    )


def run_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of one policy's runs."""
    return _params(study, policy, _seed(policy))


def parent_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of the parent run over the seeds of `policy`."""
    return _params(study, policy, None)


def _params(study: Study, policy: Policy, seed: int | None) -> dict[str, str]:
    keys = dict.fromkeys(key for arm in study.arms.values() for key, _ in _recipe(arm.recipe))
    own = dict(_recipe(policy.recipe))
    if policy.stage != "rl":
        own = {key: value for key, value in own.items() if key.split(".")[0] in SECTIONS[policy.stage]}
    shared = {"seed": seed, "gpus": study.gpus, **dict(_flat("data", study.data.model_dump(mode="json")))}
    shared |= dict(_flat("evaluation", study.evaluation.model_dump(mode="json")))
    weights = {f"reward.{name}": 0.0 for name in study.rewards}
    params = shared | dict.fromkeys(keys) | weights | own
    if policy.stage != "rl":  # no rewards: the chart of the weights leaves it out, whose score would flatten the others
        params = {key: value for key, value in params.items() if key not in weights}
    return {legal_name(key): _text(value) for key, value in params.items()}


def _seed(policy: Policy) -> int | None:
    """The seed that a policy was trained with; None for a model that was not trained."""
    if policy.stage == "sft" and policy.seed is None and policy.recipe.sft is not None:
        return policy.recipe.sft.seed
    return policy.seed


def _recipe(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Keys and values of a recipe; a null `rl.epsilon_high` is replaced by its default, `rl.epsilon`."""
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
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _flat(f"{path}.{key}", inner)
    else:
        yield path, value


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return ",".join(_text(inner) for inner in cast("list[Any]", value)) or "none"
    return str(value)
