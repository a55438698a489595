"""What MLflow is told about each run of a study, apart from its metrics."""

from dataclasses import dataclass

from rlassay.config.fingerprints import evaluation_id, recipe_id
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.tracking.names import ARM, SEED
from rlassay.tracking.params import parent_params, run_params

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
