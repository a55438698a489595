"""Rules for token credit that hold across the sections of a study."""

from collections.abc import Iterator

from rlassay.config.credit import AttentionWeights, PerceptionFilter, TrajectoryScaling
from rlassay.config.data import Docstrings, Gsm8k, Summarization, Table
from rlassay.config.model import TinyLM
from rlassay.config.study import Study
from rlassay.config.training import Recipe

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
