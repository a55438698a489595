"""What no single section can know: rules that hold across the sections of a study, at every scale."""

from collections.abc import Callable, Iterable, Iterator
from math import gcd

from rlassay.config.credit_checks import check_credit
from rlassay.config.data import Digits
from rlassay.config.explain import nearest, one_of
from rlassay.config.model import TinyVLM
from rlassay.config.study import SCORE_METRICS, Study
from rlassay.config.training import Recipe
from rlassay.records import TRAINING_SPLITS
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.weights import weight_at


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
