"""Check the sections of `rl` that choose the algorithm against the whole recipe."""

from collections.abc import Callable, Iterator

from rlassay.config.algorithm import AdaptiveController, MaxRLAdvantage, PassAtKAdvantage, ReMaxAdvantage
from rlassay.config.model import TinyLM
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.names import nearest, one_of

LOSSES_WITHOUT_CLIPPING = ("cispo", "sapo", "vespo")
"""Loss types that do not clip the ratio on both sides."""
PENALTIES = ("modality_balance", "soft_overlong")
"""Rewards that can be below 0."""


def _advantage(_: Study, recipe: Recipe) -> Iterator[str]:
    rl, advantage = recipe.rl, recipe.rl.advantage
    size = "num_generations" if rl.train_on is None else "train_on"
    if isinstance(advantage, PassAtKAdvantage) and advantage.k >= getattr(rl, size):
        yield (
            f"rl.advantage.k: {advantage.k}, expected less than rl.{size}, {getattr(rl, size)}: sets of {advantage.k} "
            "completions have to differ, or all advantages are 0"
        )
    if isinstance(advantage, ReMaxAdvantage) and rl.multi_objective_aggregation == "normalize_then_sum":
        yield (
            "rl.multi_objective_aggregation: normalize_then_sum has no value for the greedy completion of rl.advantage "
            "remax, which is no member of the group; set sum_then_normalize"
        )
    option = "replay" if rl.replay is not None else "train_on" if rl.train_on is not None else None
    if option is not None and rl.kl is not None and rl.kl.where == "reward" and advantage.kind != "gae":
        yield f"rl.kl.where: reward, but rl.{option} makes advantages from rewards without a penalty; expected loss"
    per_batch = {"remax", "opo"} if option == "replay" else {"remax", "opo", "gae"}
    if option is not None and advantage.kind in per_batch:
        yield (
            f"rl.{option}: the advantages of {advantage.kind} are not made from the rewards of one group alone; choose "
            "another rl.advantage, or drop it"
        )


def _max_rl(_: Study, recipe: Recipe) -> Iterator[str]:
    """MaxRL divides by the mean total reward, so that none may be below 0."""
    rl = recipe.rl
    if not isinstance(rl.advantage, MaxRLAdvantage):
        return
    below_0 = {
        "rl.multi_objective_aggregation: normalize_then_sum": rl.multi_objective_aggregation == "normalize_then_sum",
        "rl.kl.where: reward": rl.kl is not None and rl.kl.where == "reward" and rl.beta > 0,
    }
    for name, phases in recipe.weight_phases.items():
        weights = [weight for _, weight in phases]
        below_0[f"rewards.{name}"] = min(weights) < 0 or (name in PENALTIES and max(weights) > 0)
    for cause in (name for name, is_so in below_0.items() if is_so):
        yield f"{cause}: gives total rewards below 0, which rl.advantage max_rl does not take; drop one of them"


def _choice(_: Study, recipe: Recipe) -> Iterator[str]:
    """The completions of each group that train exist, and fill the micro-batches."""
    rl, sampling = recipe.rl, recipe.rl.dynamic_sampling
    if sampling is not None:
        if sampling.filter_reward is not None and sampling.filter_reward not in recipe.rewards:
            name, known = sampling.filter_reward, recipe.rewards
            yield f"rl.dynamic_sampling.filter_reward: got {name!r}, expected {one_of(known)}{nearest(name, known)}"
        if sampling.filter_low >= sampling.filter_high:
            yield (
                f"rl.dynamic_sampling.filter_low: got {sampling.filter_low:g}, expected less than filter_high "
                f"{sampling.filter_high:g}"
            )
    if rl.train_on is None:
        return
    if rl.replay is not None:
        yield "rl.train_on: a replayed group keeps the advantages of the whole group; drop rl.replay or rl.train_on"
    groups = rl.per_device_train_batch_size * rl.steps_per_generation // rl.num_generations
    if rl.train_on > rl.num_generations:
        yield f"rl.train_on: got {rl.train_on}, expected at most num_generations {rl.num_generations}"
    elif groups * rl.train_on % rl.steps_per_generation:
        yield (
            f"rl.train_on: {groups} groups x {rl.train_on} completions do not divide into steps_per_generation "
            f"{rl.steps_per_generation} micro-batches; choose another"
        )


def _kl(study: Study, recipe: Recipe) -> Iterator[str]:
    """The KL penalty has a working controller, rewards to be taken from, and a reference."""
    rl, kl = recipe.rl, recipe.rl.kl
    if rl.sync_ref_model and rl.beta == 0 and kl is None:
        yield "rl.sync_ref_model: true, but without beta or kl there is no reference policy; set one of them, or false"
    if rl.sync_ref_model and recipe.model.lora is not None:
        yield "rl.sync_ref_model: true, but adapters are compared with the model that they started from; expected false"
    if kl is None:
        return
    if kl.where == "reward" and kl.credit:
        yield "rl.kl.credit: weighs tokens in the loss, but rl.kl.where is reward; expected loss, or leave it out"
    if kl.credit and rl.beta == 0:
        yield "rl.kl.credit: weighs a penalty whose weight rl.beta is 0; set rl.beta above 0, or leave it out"
    if kl.where == "reward" and rl.multi_objective_aggregation == "normalize_then_sum":
        yield (
            "rl.kl.where: reward, but rl.multi_objective_aggregation normalize_then_sum leaves no total reward to take "
            "nats from; expected loss, or sum_then_normalize"
        )
    if isinstance(kl.controller, AdaptiveController):
        if rl.beta == 0:
            yield "rl.beta: 0, but an adaptive controller multiplies it and never leaves 0; expected a number above 0"
        micro_batches = rl.steps_per_generation if kl.where == "reward" else rl.gradient_accumulation_steps
        completions = rl.per_device_train_batch_size * micro_batches * study.num_processes
        if completions >= 5 * kl.controller.horizon:
            yield (
                f"rl.kl.controller.horizon: {kl.controller.horizon:g}, but each of its steps is for {completions} "
                f"completions, so that beta could reach 0; expected more than {completions / 5:g}"
            )


def _losses(_: Study, recipe: Recipe) -> Iterator[str]:
    """No option is set that the loss would ignore."""
    rl = recipe.rl
    if rl.delta is not None:
        upper = 1 + (rl.epsilon if rl.epsilon_high is None else rl.epsilon_high)
        if rl.loss_type in LOSSES_WITHOUT_CLIPPING:
            yield f"rl.delta: {rl.delta:g}, but rl.loss_type {rl.loss_type} has no two-sided clipping; expected null"
        elif rl.delta <= upper:
            yield f"rl.delta: {rl.delta:g} is inside the clip range, where it changes nothing; expected above {upper:g}"
    for name in sorted(rl.model_fields_set):
        kind = name.partition("_")[0]
        default = type(rl).model_fields[name].default
        if kind in ("sapo", "vespo") and kind != rl.loss_type and getattr(rl, name) != default:
            yield f"rl.{name}: {getattr(rl, name):g}, but rl.loss_type {rl.loss_type} does not use it; leave it out"


def _penalty(_: Study, recipe: Recipe) -> Iterator[str]:
    """A penalty for leaving the sampling policy needs steps in which the policy differs."""
    rl = recipe.rl
    uses = rl.steps_per_generation * rl.num_iterations
    for i, part in enumerate(recipe.credit):
        if part.kind == "covariance_penalty" and rl.gradient_accumulation_steps % uses == 0:
            yield (
                f"credit.{i}: covariance_penalty has no gradient where each generation batch trains one optimiser "
                "step; set rl.num_iterations to 2, or rl.steps_per_generation above rl.gradient_accumulation_steps"
            )


def _guard(_: Study, recipe: Recipe) -> Iterator[str]:
    guard, rl = recipe.rl.guard, recipe.rl
    if guard is not None and guard.max_kl is not None and rl.beta == 0 and rl.kl is None:
        yield "rl.guard.max_kl: no KL is measured; add rl.kl, which with rl.beta 0 measures only"


def _tune(_: Study, recipe: Recipe) -> Iterator[str]:
    """At least one part trains, and the model has the parts that `rl.tune` names."""
    tune = recipe.rl.tune
    if tune is None:
        return
    if not (tune.language_model or tune.vision or tune.connector):
        yield "rl.tune: language_model, vision and connector are all false: nothing would train; set one to true"
    if isinstance(recipe.model, TinyLM):
        yield "rl.tune: tiny_lm has no vision tower and no connector to tell apart; leave it out"


ALGORITHM_CHECKS: list[Callable[[Study, Recipe], Iterator[str]]] = [
    _advantage,
    _max_rl,
    _choice,
    _kl,
    _losses,
    _penalty,
    _guard,
    _tune,
]
"""Each gives the problems of one recipe, one sentence each."""
