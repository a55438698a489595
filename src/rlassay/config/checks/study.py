"""Checks across the sections of a study, and across its arms.

Sections must fit each other, and arms must be comparable. `check_study` must pass at every scale. `check_design`
applies to the study as written, since a scale may make two arms equal. Each check yields one sentence per problem: key
path, value found, values expected.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from math import gcd
from typing import Any

from rlassay.config.arms import differences, idle, undeclared
from rlassay.config.checks.algorithm import ALGORITHM_CHECKS
from rlassay.config.checks.engine import arm_in_evaluation, evaluation_engine, rl_engine
from rlassay.config.checks.evaluation import averaged_checkpoints, evaluation_sets, held_out_curve, references
from rlassay.config.checks.machine import MACHINE_CHECKS
from rlassay.config.checks.strategy import offload_can_run, strategy_can_run, strategy_fits
from rlassay.config.credit import AttentionWeights, PerceptionFilter, TrajectoryScaling
from rlassay.config.data import Digits, Gsm8k, PackageTexts, Summarization, Table
from rlassay.config.explain import describe
from rlassay.config.fingerprints import equal_arms
from rlassay.config.model import TinyLM, TinyVLM
from rlassay.config.study import SCORE_METRICS, Study
from rlassay.config.training import Recipe, RewardConfig
from rlassay.names import nearest, one_of
from rlassay.records import TRAINING_SPLITS
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.weights import weight_at

IMAGE_PARTS = (AttentionWeights, PerceptionFilter, TrajectoryScaling)
"""Credit parts that need an image."""
TEXT_SOURCES = (PackageTexts, Gsm8k, Summarization)
"""Sources whose rows have no image."""
ATTENTION_REWARDS = ("modality_balance", "vision_gain")
"""Rewards that read how attention is divided between text and image."""
UNIFORM_PARTS = ("uniform", "trajectory_scaling", "shuffled_weights")
"""Credit parts that treat all tokens of a completion alike. With them `shuffled_weights` has nothing to shuffle."""
OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names that a reward of the user's own may have."""
LOSSES_WITHOUT_TOKEN_COUNT = ("dr_grpo", "luspo")
"""Loss types that do not divide by a number of tokens."""


def check_study(study: Study) -> list[str]:
    """The problems between the sections of a study, one sentence each; empty for a valid study."""
    of_study = [_seeds, _processes, strategy_can_run, _data, evaluation_sets, held_out_curve, evaluation_engine]
    of_study += [_primary, averaged_checkpoints, references, offload_can_run]
    of_recipe = [_image_size, _warm_start, _rewards, _weights, _groups, _prompts, _checkpoints, _credit]
    of_recipe += [_seq2seq, arm_in_evaluation, rl_engine, strategy_fits, *ALGORITHM_CHECKS, *MACHINE_CHECKS]
    problems = [problem for check in of_study for problem in check(study)]
    return problems + [problem for check in of_recipe for problem in _in_arms(study, check)]


def _in_arms(study: Study, check: Callable[[Study, Recipe], Iterable[str]]) -> Iterator[str]:
    """The problems that `check` finds in the arms' recipes; one that all arms share is listed once."""
    found: dict[str, list[str]] = {}
    for name, arm in study.arms.items():
        for problem in check(study, arm.recipe):
            found.setdefault(problem, []).append(name)
    for problem, (first, *others) in found.items():
        if others and len(others) + 1 == len(study.arms):
            yield problem
        elif (cause := _ingredient(study, {first, *others})) is not None:
            yield f"ingredients.{cause}.{problem}"
        else:
            yield f"arms.{first}.{problem}" + (f" (also in {', '.join(others)})" if others else "")


def _ingredient(study: Study, arms: set[str]) -> str | None:
    """The ingredient that exactly these arms have, if there is one."""
    found = (
        each for each in study.ingredients if {name for name, arm in study.arms.items() if each in arm.has} == arms
    )
    return next(found, None)


def _seeds(study: Study) -> Iterator[str]:
    for seed in sorted({seed for seed in study.seeds if study.seeds.count(seed) > 1}):
        yield f"seeds: {seed} appears twice in the list; expected different seeds"
    rounds = study.sequential
    if rounds is not None and rounds.max <= rounds.start:
        yield f"seeds.max: got the number {rounds.max}, expected more than seeds.start, which is {rounds.start}"
    if rounds is not None and rounds.stop == "decided_or_hopeless" and study.primary.smallest_effect is None:
        yield (
            "seeds.stop: decided_or_hopeless, but primary.smallest_effect is null, so that no gain is too small to "
            "matter; declare one, or set seeds.stop to decided"
        )


def _data(study: Study) -> Iterator[str]:
    if "train" not in study.data.splits:
        yield f"data.splits: no split 'train' to train on; got {', '.join(study.data.splits) or 'none'}"
    if isinstance(study.data, Digits) and study.data.guess_share + study.data.misread_share > 1:
        shares = f"{study.data.guess_share:g} + {study.data.misread_share:g}"
        yield f"data.misread_share: guess_share + misread_share = {shares}, expected at most 1 together"


def _primary(study: Study) -> Iterator[str]:
    primary, evaluation = study.primary, study.evaluation
    if primary.set not in evaluation.sets:
        expected = f"expected a set of evaluation.sets: {one_of(evaluation.sets)}"
        yield f"primary.set: got the text {primary.set!r}, {expected}{nearest(primary.set, evaluation.sets)}"
    if primary.set in TRAINING_SPLITS:
        held_out = [split for split in evaluation.sets if split not in TRAINING_SPLITS]
        expected = one_of(held_out) if held_out else "a held-out one, but evaluation.sets has none"
        yield f"primary.set: {primary.set!r} is a training split; expected {expected}"
    metrics = [*study.rewards, *SCORE_METRICS]
    if primary.metric not in metrics and not (_misspelt(study) and primary.metric in REWARDS):
        expected = f"expected a reward of the study or a metric of the score stage: {one_of(metrics)}"
        yield f"primary.metric: got the text {primary.metric!r}, {expected}{nearest(primary.metric, metrics)}"
    if primary.mode == "beams" and evaluation.beams is None:
        yield "primary.mode: beams, but evaluation.beams is null; set it, or primary.mode to sampled"
    if primary.mode == "greedy" and not evaluation.greedy:
        yield "primary.mode: greedy, but evaluation.greedy is false; set it to true, or primary.mode to sampled"


def _image_size(_: Study, recipe: Recipe) -> Iterator[str]:
    model = recipe.model
    if isinstance(model, TinyVLM) and model.image_size % model.patch_size:
        nearby = max(1, round(model.image_size / model.patch_size)) * model.patch_size
        yield f"model.image_size: {model.image_size} is not a multiple of patch_size {model.patch_size}; try {nearby}"


def _warm_start(study: Study, recipe: Recipe) -> Iterator[str]:
    if recipe.sft is not None and "sft" not in study.data.splits:
        splits = ", ".join(study.data.splits) or "none"
        yield f"sft: a warm start needs a split 'sft' in data.splits, which has {splits}; add it, or set sft to null"


def _rewards(_: Study, recipe: Recipe) -> Iterator[str]:
    for name, reward in recipe.rewards.items():
        if reward.kind == "custom":
            yield from _custom_reward(name, reward)
            continue
        if reward.path is not None or reward.batch:
            yield f"rewards.{name}: path and batch belong to a reward of your own; add kind: custom, or leave them out"
        if name not in REWARDS:
            yield f"rewards.{name}: unknown reward; expected {one_of(REWARDS)}{nearest(name, REWARDS)}"
            continue
        try:
            check_reward_options(name, reward.options)
        except ValueError as error:
            yield f"rewards.{name}.options: {str(error).removeprefix(f'{name}: ')}"


def _misspelt(study: Study) -> bool:
    """Whether an arm has an unknown reward; then a difference in rewards or an unknown metric has the same cause."""
    rewards = [reward for arm in study.arms.values() for reward in arm.recipe.rewards.items()]
    return any(reward.kind != "custom" and name not in REWARDS for name, reward in rewards)


def _custom_reward(name: str, reward: RewardConfig) -> Iterator[str]:
    """A custom reward has a valid name, a path, and options that it accepts.

    The name is used in logs and files.
    """
    if not OWN_NAME.fullmatch(name):
        yield f"rewards.{name}: expected a name of letters, digits, _ and - that begins with a letter"
    elif name in (*REWARDS, *SCORE_METRICS, "length") and name != "custom":
        yield f"rewards.{name}: kind is custom, but {name} is the name of a built-in reward or metric; choose another"
    if reward.path is None:
        yield f"rewards.{name}.path: missing; expected a Python file, a colon and a function, such as mine.py:reward"
        return
    try:
        check_reward_options("custom", reward.arguments)
    except ValueError as error:
        yield f"rewards.{name}.{error}"


def _weights(_: Study, recipe: Recipe) -> Iterator[str]:
    for name, reward in recipe.rewards.items():
        if reward.early_weight is not None and reward.schedule:
            yield f"rewards.{name}: early_weight and schedule both set its weight; leave one of them out"
        starts = [start for start, _ in reward.schedule]
        if starts != sorted(set(starts)):
            got = ", ".join(f"{start:g}" for start in starts)
            yield f"rewards.{name}.schedule: got the progress {got}; expected ascending numbers from 0 to 1"
            return
    phases = recipe.weight_phases.values()
    for start in sorted({start for each in phases for start, _ in each if start < 1}):
        if all(weight_at(each, start) == 0 for each in phases):
            when = f" from progress {start:g} on" if start else ""
            yield (f"rewards: every weight is 0{when}, so nothing would be learned; expected at least one other than 0")


def _processes(study: Study) -> Iterator[str]:
    if study.gpus and study.processes > 1:
        yield (
            f"processes: {study.processes}, but gpus is {study.gpus}, and each GPU has a process of its own; "
            "leave processes out, or set gpus to 0"
        )


def _groups(_: Study, recipe: Recipe) -> Iterator[str]:
    rl = recipe.rl
    completions = rl.per_device_train_batch_size * rl.steps_per_generation
    if completions % rl.num_generations:
        multiple = rl.num_generations // gcd(rl.num_generations, rl.steps_per_generation)
        yield (
            f"rl.per_device_train_batch_size: {rl.per_device_train_batch_size} x steps_per_generation "
            f"{rl.steps_per_generation} = {completions} completions, which do not divide into groups of "
            f"num_generations {rl.num_generations}; expected a multiple of {multiple}"
        )


def _prompts(study: Study, recipe: Recipe) -> Iterator[str]:
    """TRL drops a generation batch that the split cannot fill, and then trains on nothing."""
    rl, rows = recipe.rl, study.data.splits.get("train")
    completions = rl.per_device_train_batch_size * rl.steps_per_generation * study.num_processes
    if rows is not None and rows * rl.num_generations < completions:
        yield (
            f"rl.per_device_train_batch_size: a generation batch takes {completions // rl.num_generations} prompts "
            f"({completions} completions in groups of {rl.num_generations}), but data.splits.train has {rows}; "
            "lower it, or add rows"
        )


def _checkpoints(_: Study, recipe: Recipe) -> Iterator[str]:
    """A resumed run equals an uninterrupted one only if no checkpoint splits a generation batch."""
    rl = recipe.rl
    micro_batches = rl.steps_per_generation * rl.num_iterations
    steps = micro_batches // gcd(micro_batches, rl.gradient_accumulation_steps)
    if rl.save_steps % steps:
        yield (
            f"rl.save_steps: {rl.save_steps} is not a multiple of {steps}, the steps that one generation batch lasts "
            f"(steps_per_generation {rl.steps_per_generation} x num_iterations {rl.num_iterations} / "
            f"gradient_accumulation_steps {rl.gradient_accumulation_steps}); try "
            f"{max(1, round(rl.save_steps / steps)) * steps}"
        )


def _credit(study: Study, recipe: Recipe) -> Iterator[str]:
    yield from _credit_images(study, recipe)
    for path, parts in recipe.credit_lists.items():
        yield from _credit_order(path, [part.kind for part in parts])
    if recipe.credit_denominator == "selected" and recipe.rl.loss_type in LOSSES_WITHOUT_TOKEN_COUNT:
        yield (
            f"credit_denominator: selected, but rl.loss_type {recipe.rl.loss_type} does not divide by a number of "
            "tokens; expected all, or another loss_type"
        )


def _credit_images(study: Study, recipe: Recipe) -> Iterator[str]:
    """Parts that need an image need a model and rows that have one."""
    data, model = study.data, recipe.model
    textual = isinstance(data, Table) and data.preset is None and (data.columns is None or data.columns.images is None)
    placed = [(f"{path}.{i}", part) for path, parts in recipe.credit_lists.items() for i, part in enumerate(parts)]
    for path, part in placed:
        if not isinstance(part, IMAGE_PARTS):
            continue
        if isinstance(model, TinyLM) or recipe.is_seq2seq:
            yield f"{path}: {part.kind} needs an image, but model.kind {model.kind} reads text only; leave it out"
        elif textual or isinstance(data, TEXT_SOURCES):
            yield f"{path}: {part.kind} needs an image, but rows of data.kind {data.kind} have none; leave it out"


def _seq2seq(_: Study, recipe: Recipe) -> Iterator[str]:
    """Options of causal models alone, and options of encoder-decoders alone."""
    if not recipe.is_seq2seq:
        if recipe.rl.beam_sampling:
            yield "rl.beam_sampling: true, but only encoder-decoders sample so; set it to false"
        return
    unfit = [f"rewards.{name}" for name in recipe.rewards if name in ATTENTION_REWARDS]
    unfit += ["rl.advantage: gae"] if recipe.rl.advantage.kind == "gae" else []
    unfit += ["rl.kl: exact"] if recipe.rl.kl is not None and recipe.rl.kl.kind == "exact" else []
    for each in unfit:
        yield f"{each}: not available for encoder-decoders; leave it out"


def _credit_order(path: str, kinds: list[str]) -> Iterator[str]:
    """No part appears twice, and `shuffled_weights` has weights to shuffle."""
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            yield f"{path}.{i}: {kind} appears twice in the list; expected one of each kind"
        elif kind == "shuffled_weights" and all(before in UNIFORM_PARTS for before in kinds[:i]):
            yield (f"{path}.{i}: shuffled_weights has nothing to shuffle; put a filter or attention_weights before it")
    if {"random_filter", "shuffled_weights"} <= set(kinds):
        yield (
            f"{path}: random_filter and shuffled_weights use the same random draws, and a random choice needs no "
            "shuffling; leave one out"
        )


def check_design(study: Study) -> list[str]:
    """The problems of the comparison, one sentence each: names, equal arms, confounds; empty for a valid study."""
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
            yield f"family.{i}: {name!r} is the baseline, which is never compared with itself; leave it out"
        if name in study.family[:i]:
            yield f"family.{i}: {name!r} appears twice in the list"


def _labels(study: Study) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        if arm.label in first:
            yield f"arms.{name}.label: {arm.label!r} is also the label of {first[arm.label]!r}; expected another text"
        first.setdefault(arm.label, name)


def _equal_arms(study: Study) -> Iterator[str]:
    for name, other in equal_arms(study).items():
        yield f"arms.{name}: equal to arms.{other} and would train the same weights; change or remove one"


def _declarations(study: Study) -> Iterator[str]:
    """Confounds, and paths of `varies` in which nothing differs."""
    misspelt = _misspelt(study)
    for name, found in differences(study).items():
        varies = study.arms[name].varies
        paths = [difference.path for difference in found]
        for difference in undeclared(found, varies):
            if misspelt and difference.path.split(".")[0] == "rewards":
                continue
            yield (
                f"arms.{name}: {difference.path} is {_short(difference.arm)} here and {_short(difference.baseline)} in "
                f"the baseline {study.baseline!r}, a confound; add {difference.path} to `varies` if this "
                "arm tests it, or take the difference out"
            )
        for path in idle(found, varies):
            if misspelt and path.split(".")[0] == "rewards":
                continue
            others = f"; this arm differs in {', '.join(paths)}{nearest(path, paths)}" if paths else ""
            yield f"arms.{name}.varies: nothing below {path!r} differs from the baseline {study.baseline!r}{others}"


def _short(value: Any) -> str:
    return describe(value) if value is None or isinstance(value, dict | list) else repr(value)
