"""What no single section can know: rules that hold across the sections of a study, at every scale."""

from collections.abc import Callable, Iterable, Iterator
from math import gcd
from typing import Any

from rlassay.config.arms import differences, idle, undeclared
from rlassay.config.credit import AttentionWeights, PerceptionFilter, TrajectoryScaling
from rlassay.config.data import Digits, Docstrings, Gsm8k, Summarization, Table
from rlassay.config.explain import describe, nearest, one_of
from rlassay.config.fingerprints import recipe_id
from rlassay.config.model import TinyLM, TinyVLM
from rlassay.config.study import SCORE_METRICS, Study
from rlassay.config.training import Recipe
from rlassay.records import TRAINING_SPLITS
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.weights import weight_at

# MERGED FROM config.credit_checks: Rules for token credit that hold across the sections of a study.

READ_THE_IMAGE = (AttentionWeights, PerceptionFilter, TrajectoryScaling)
WITHOUT_IMAGES = (Docstrings, Gsm8k, Summarization)
UNIFORM_WITHIN = ("uniform", "trajectory_scaling", "shuffled_weights")
"""Parts that give all tokens of a completion the same, so that there is nothing to shuffle."""
NOT_COUNTED = ("dr_grpo", "luspo")
"""Losses that divide by no number of tokens."""


def check_credit(study: Study, recipe: Recipe) -> Iterator[str]:
    """One sentence for everything that is wrong with a recipe's credit in this study."""
    yield from _images(study, recipe)
    yield from _order(recipe)
    if recipe.credit_denominator == "selected" and recipe.rl.loss_type in NOT_COUNTED:
        yield (
            f"credit_denominator: selected, but rl.loss_type {recipe.rl.loss_type} divides by no number of tokens; "
            "expected all, or another loss_type"
        )


def _images(study: Study, recipe: Recipe) -> Iterator[str]:
    """Parts that read the image need a model and rows that can have one."""
    data, model = study.data, recipe.model
    textual = isinstance(data, Table) and data.preset is None and (data.columns is None or data.columns.images is None)
    for i, part in enumerate(recipe.credit):
        if not isinstance(part, READ_THE_IMAGE):
            continue
        if isinstance(model, TinyLM):
            yield f"credit.{i}: {part.kind} needs an image, and model.kind {model.kind} sees none; leave it out"
        elif textual or isinstance(data, WITHOUT_IMAGES):
            yield f"credit.{i}: {part.kind} needs an image, and rows of data.kind {data.kind} have none; leave it out"


def _order(recipe: Recipe) -> Iterator[str]:
    """No part stands twice, and a shuffle has something to shuffle."""
    kinds = [part.kind for part in recipe.credit]
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            yield f"credit.{i}: {kind} stands in the list twice; expected one of each kind"
        elif kind == "shuffled_weights" and all(before in UNIFORM_WITHIN for before in kinds[:i]):
            yield (
                f"credit.{i}: shuffled_weights has nothing to shuffle; expected a filter or attention_weights before it"
            )
    if {"random_filter", "shuffled_weights"} <= set(kinds):
        yield (
            "credit: random_filter and shuffled_weights go by the same random draws, and a random choice needs no "
            "shuffling; leave one out"
        )


# MERGED FROM config.checks: What no single section can know: rules that hold across the sections of a study, at
# every scale.


def check_study(study: Study) -> list[str]:
    """One sentence for everything that is wrong across the sections of a study; empty for a sound one."""
    of_study = [_seeds, _data, _evaluation, _primary]
    of_recipe = [_image, _warm_start, _rewards, _weights, _groups, _prompts, _checkpoints, check_credit]
    problems = [problem for check in of_study for problem in check(study)]
    return problems + [problem for check in of_recipe for problem in _in_arms(study, check)]


def _in_arms(study: Study, check: Callable[[Study, Recipe], Iterable[str]]) -> Iterator[str]:
    """What `check` finds in the arms' recipes; what it finds in all of them is shared, and stands once."""
    found: dict[str, list[str]] = {}
    for name, arm in study.arms.items():
        for problem in check(study, arm.recipe):
            found.setdefault(problem, []).append(name)
    for problem, (first, *others) in found.items():
        if others and len(others) + 1 == len(study.arms):
            yield problem
        else:
            yield f"arms.{first}.{problem}" + (f" (also in {', '.join(others)})" if others else "")


def _seeds(study: Study) -> Iterator[str]:
    for seed in sorted({seed for seed in study.seeds if study.seeds.count(seed) > 1}):
        yield f"seeds: {seed} stands in the list twice; expected different seeds"


def _data(study: Study) -> Iterator[str]:
    if "train" not in study.data.splits:
        yield f"data.splits: no split 'train' to learn from; got {', '.join(study.data.splits) or 'none'}"
    if isinstance(study.data, Digits) and study.data.guess_share + study.data.misread_share > 1:
        shares = f"{study.data.guess_share:g} + {study.data.misread_share:g}"
        yield f"data.misread_share: guess_share + misread_share = {shares}, expected at most 1 together"


def _evaluation(study: Study) -> Iterator[str]:
    held_out = [split for split in study.data.splits if split not in TRAINING_SPLITS]
    for i, name in enumerate(study.evaluation.sets):
        path = f"evaluation.sets.{i}"
        if name in TRAINING_SPLITS:
            expected = one_of(held_out) if held_out else "a held-out one, which data.splits has not"
            yield f"{path}: {name!r} is a training split; expected {expected}"
        elif name not in held_out:
            expected = f"expected a split of data.splits: {one_of(held_out)}" if held_out else "data.splits has none"
            yield f"{path}: got the text {name!r}, {expected}{nearest(name, held_out)}"
        if name in study.evaluation.sets[:i]:
            yield f"{path}: {name!r} stands in the list twice"


def _primary(study: Study) -> Iterator[str]:
    primary, evaluation = study.primary, study.evaluation
    if primary.set not in evaluation.sets:
        expected = f"expected a set of evaluation.sets: {one_of(evaluation.sets)}"
        yield f"primary.set: got the text {primary.set!r}, {expected}{nearest(primary.set, evaluation.sets)}"
    metrics = [*study.rewards, *SCORE_METRICS]
    if primary.metric not in metrics:
        expected = f"expected a reward of the study or a metric of the score stage: {one_of(metrics)}"
        yield f"primary.metric: got the text {primary.metric!r}, {expected}{nearest(primary.metric, metrics)}"
    if primary.mode == "greedy" and not evaluation.greedy:
        yield "primary.mode: greedy, but evaluation.greedy is false; set it to true, or primary.mode to sampled"


def _image(_: Study, recipe: Recipe) -> Iterator[str]:
    model = recipe.model
    if isinstance(model, TinyVLM) and model.image_size % model.patch_size:
        nearby = max(1, round(model.image_size / model.patch_size)) * model.patch_size
        yield f"model.image_size: {model.image_size} is no multiple of patch_size {model.patch_size}; try {nearby}"


def _warm_start(study: Study, recipe: Recipe) -> Iterator[str]:
    if recipe.sft is not None and "sft" not in study.data.splits:
        splits = ", ".join(study.data.splits) or "none"
        yield f"sft: a warm start needs a split 'sft' in data.splits, which has {splits}; add it, or set sft to null"


def _rewards(_: Study, recipe: Recipe) -> Iterator[str]:
    for name, reward in recipe.rewards.items():
        if name not in REWARDS:
            yield f"rewards.{name}: unknown reward; expected {one_of(REWARDS)}{nearest(name, REWARDS)}"
            continue
        try:
            check_reward_options(name, reward.options)
        except ValueError as error:
            yield f"rewards.{name}.options: {str(error).removeprefix(f'{name}: ')}"


def _weights(_: Study, recipe: Recipe) -> Iterator[str]:
    for name, reward in recipe.rewards.items():
        if reward.early_weight is not None and reward.schedule:
            yield f"rewards.{name}: both early_weight and schedule say what its weight is; leave out one of them"
        starts = [start for start, _ in reward.schedule]
        if starts != sorted(set(starts)):
            got = ", ".join(f"{start:g}" for start in starts)
            yield f"rewards.{name}.schedule: got the progress {got}; expected ascending numbers from 0 to 1"
            return
    phases = recipe.weight_phases.values()
    for start in sorted({start for each in phases for start, _ in each if start < 1}):
        if all(weight_at(each, start) == 0 for each in phases):
            when = f" from progress {start:g} on" if start else ""
            yield (
                f"rewards: every weight is 0{when}, so that nothing would be learned; "
                "expected at least one other than 0"
            )


def _groups(_: Study, recipe: Recipe) -> Iterator[str]:
    rl = recipe.rl
    completions = rl.per_device_train_batch_size * rl.steps_per_generation
    if completions % rl.num_generations:
        multiple = rl.num_generations // gcd(rl.num_generations, rl.steps_per_generation)
        yield (
            f"rl.per_device_train_batch_size: {rl.per_device_train_batch_size} x steps_per_generation "
            f"{rl.steps_per_generation} = {completions} completions, which do not part into groups of "
            f"num_generations {rl.num_generations}; expected a multiple of {multiple}"
        )


def _prompts(study: Study, recipe: Recipe) -> Iterator[str]:
    """TRL drops a generation batch that the split cannot fill, and then has nothing to train on."""
    rl, rows = recipe.rl, study.data.splits.get("train")
    completions = rl.per_device_train_batch_size * rl.steps_per_generation * max(1, study.gpus)
    if rows is not None and rows * rl.num_generations < completions:
        yield (
            f"rl.per_device_train_batch_size: a generation batch takes {completions // rl.num_generations} prompts "
            f"({completions} completions in groups of {rl.num_generations}), but data.splits.train has {rows}; "
            "lower it, or add rows"
        )


def _checkpoints(_: Study, recipe: Recipe) -> Iterator[str]:
    """A resumed run repeats the uninterrupted one only if no checkpoint cuts a generation batch in two."""
    rl = recipe.rl
    micro_batches = rl.steps_per_generation * rl.num_iterations
    steps = micro_batches // gcd(micro_batches, rl.gradient_accumulation_steps)
    if rl.save_steps % steps:
        yield (
            f"rl.save_steps: {rl.save_steps} is no multiple of {steps}, the steps that use up a generation batch "
            f"(steps_per_generation {rl.steps_per_generation} x num_iterations {rl.num_iterations} / "
            f"gradient_accumulation_steps {rl.gradient_accumulation_steps}); try "
            f"{max(1, round(rl.save_steps / steps)) * steps}"
        )


# MERGED FROM config.design: Checks of the comparison: named arms exist, no two arms are the same, and arms
# differ only in what they declare.


def check_design(study: Study) -> list[str]:
    """One sentence for everything that is wrong with what the study compares; empty for a sound one."""
    problems = [*_names(study), *_family(study), *_labels(study), *_equal_arms(study)]
    if study.baseline in study.arms:
        problems += _declarations(study)
    return problems


def _names(study: Study) -> Iterator[str]:
    for path, name in [("baseline", study.baseline), *((f"family.{i}", name) for i, name in enumerate(study.family))]:
        if name not in study.arms:
            yield f"{path}: got the text {name!r}, expected an arm: {one_of(study.arms)}{nearest(name, study.arms)}"


def _family(study: Study) -> Iterator[str]:
    for i, name in enumerate(study.family):
        if name == study.baseline:
            yield f"family.{i}: {name!r} is the baseline, which is not compared with itself; leave it out"
        if name in study.family[:i]:
            yield f"family.{i}: {name!r} stands in the list twice"


def _labels(study: Study) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        if arm.label in first:
            yield f"arms.{name}.label: {arm.label!r} is also the label of {first[arm.label]!r}; expected another text"
        first.setdefault(arm.label, name)


def _equal_arms(study: Study) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        recipe = recipe_id(arm.recipe)
        if recipe in first:
            yield f"arms.{name}: equal to arms.{first[recipe]} and would train the same weights; change or remove one"
        first.setdefault(recipe, name)


def _declarations(study: Study) -> Iterator[str]:
    """Confounds, and declarations in which nothing differs."""
    for name, found in differences(study).items():
        varies = study.arms[name].varies
        paths = [difference.path for difference in found]
        for difference in undeclared(found, varies):
            yield (
                f"arms.{name}: {difference.path} is {_short(difference.arm)} here and {_short(difference.baseline)} in "
                f"the baseline {study.baseline!r}, a confound; add {difference.path} to `varies` if it is what this "
                "arm tests, or take the difference out"
            )
        for path in idle(found, varies):
            others = f"; this arm differs in {', '.join(paths)}{nearest(path, paths)}" if paths else ""
            yield f"arms.{name}.varies: nothing below {path!r} differs from the baseline {study.baseline!r}{others}"


def _short(value: Any) -> str:
    return describe(value) if value is None or isinstance(value, dict | list) else repr(value)
