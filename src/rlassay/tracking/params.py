"""A study's sections as flat MLflow params: the same keys on every run, numbers wherever they can be.

Parallel coordinates leave out a run that lacks a param, so a reward that an arm does not use has weight 0.0 and a
section that a run does not have says `none`.
"""

from collections.abc import Iterator
from typing import Any

from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.tracking.names import legal_name

_REWARD = ("reward", "reward_early", "reward_schedule")
_CREDIT = ("credit", "credit_denominator", "entropy_penalty_coef")
RL_SECTIONS = ("model", "sft", "rl", *_REWARD, *_CREDIT, "signals")
"""What the weights of a run depend on, apart from data and seed."""


def run_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of one policy's runs."""
    return _params(study, policy, _seed(policy))


def parent_params(study: Study, policy: Policy) -> dict[str, str]:
    """The params of the parent run over the seeds of `policy`."""
    return _params(study, policy, None)


def _params(study: Study, policy: Policy, seed: int | None) -> dict[str, str]:
    sections = {"model": ("model",), "sft": ("model", "sft"), "rl": RL_SECTIONS}
    keys = dict.fromkeys(key for arm in study.arms.values() for key, _ in _recipe(arm.recipe))
    own = {key: value for key, value in _recipe(policy.recipe) if key.split(".")[0] in sections[policy.stage]}
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
    for section in ("model", "sft", "rl"):
        yield from _flat(section, content[section])
    for name, reward in content["rewards"].items():
        yield f"reward.{name}", reward["weight"]
        if reward["early_weight"] is not None:
            yield f"reward_early.{name}", reward["early_weight"]
        if reward["schedule"]:
            yield f"reward_schedule.{name}", [f"{start:g}:{weight:g}" for start, weight in reward["schedule"]]
        yield from _flat(f"reward.{name}", reward["options"])
    yield "credit", [part["kind"] for part in content["credit"]]
    for part in content["credit"]:
        yield from _flat(f"credit.{part.pop('kind')}", part)
    yield "credit_denominator", content["credit_denominator"]
    yield "entropy_penalty_coef", content["entropy_penalty_coef"]
    yield from _flat("signals", content["signals"])


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
