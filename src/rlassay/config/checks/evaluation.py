"""Checks of the evaluation: its sets, held-out curves, averaged checkpoints, references."""

from collections.abc import Iterator
from pathlib import Path

from rlassay.config.study import Study
from rlassay.names import nearest, one_of
from rlassay.records import TRAINING_SPLITS

MODEL_FILES = ("config.json", "adapter_config.json")
"""Files of which the folder of a model or an adapter has one."""


def evaluation_sets(study: Study) -> Iterator[str]:
    """Sets are held-out splits of the data, each once."""
    held_out = [split for split in study.data.splits if split not in TRAINING_SPLITS]
    for i, name in enumerate(study.evaluation.sets):
        path = f"evaluation.sets.{i}"
        if name not in study.data.splits:
            expected = f"expected a split of data.splits: {one_of(held_out)}" if held_out else "data.splits has none"
            yield f"{path}: got the text {name!r}, {expected}{nearest(name, held_out)}"
        if name in study.evaluation.sets[:i]:
            yield f"{path}: {name!r} appears twice in the list"


def held_out_curve(study: Study) -> Iterator[str]:
    """A held-out curve has points between start and end, on a set of the evaluation."""
    evaluation = study.evaluation
    if evaluation.curve_set is not None and evaluation.curve_set not in evaluation.sets:
        expected = f"expected a set of evaluation.sets: {one_of(evaluation.sets)}"
        near = nearest(evaluation.curve_set, evaluation.sets)
        yield f"evaluation.curve_set: got the text {evaluation.curve_set!r}, {expected}{near}"
    if evaluation.curve_set is not None and evaluation.every is None:
        yield "evaluation.curve_set: needs evaluation.every, got null"
    if evaluation.while_training and evaluation.every is None:
        yield "evaluation.while_training: needs evaluation.every, got null"
    if evaluation.while_training and study.nodes > 1:
        yield (
            f"evaluation.while_training: expected false with nodes: {study.nodes}, since the process beside a training "
            "runs on one machine"
        )
    longest = max(arm.recipe.rl.max_steps for arm in study.arms.values())
    if evaluation.every is not None and evaluation.every >= longest:
        yield (
            f"evaluation.every: got the number {evaluation.every}, but no arm trains more than {longest} steps, so "
            "that the curve would have no point between start and end; take a smaller number, or null"
        )


def averaged_checkpoints(study: Study) -> Iterator[str]:
    """The points that `primary.over` averages are on the held-out curve of every arm."""
    over, every = study.primary.over, study.evaluation.every
    if over is None:
        return
    if every is None:
        yield f"primary.over: {over} averages points of the held-out curve, but evaluation.every is null; set it"
    elif study.curve_set != study.primary.set:
        yield (
            f"primary.over: {over} averages points on {study.primary.set!r}, but evaluation.curve_set is "
            f"{study.curve_set!r}; leave curve_set out"
        )
    else:
        steps = min(arm.recipe.rl.max_steps for arm in study.arms.values())
        points = len(study.curve_points(steps)) + 1
        if points < study.primary.num_checkpoints:
            yield (
                f"primary.over: {over}, but a run of {steps} steps has {points} "
                f"{'point' if points == 1 else 'points'} after its start with evaluation.every {every}; "
                "take fewer points, or a smaller number of steps between them"
            )


def references(study: Study) -> Iterator[str]:
    """References have names of their own, and local ones hold a model."""
    for name, one in study.references.items():
        if name in study.arms:
            yield f"references.{name}: an arm has this name too; choose another"
        looks_local = one.path.startswith((".", "/", "~")) or one.path.count("/") > 1
        if looks_local and not Path(one.path).is_dir():
            yield f"references.{name}.path: no such folder: {one.path!r}; expected the folder of a model or adapter"
        elif looks_local and not any((Path(one.path) / file).is_file() for file in MODEL_FILES):
            yield f"references.{name}.path: {one.path!r} holds no model: neither {' nor '.join(MODEL_FILES)}"
