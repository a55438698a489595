"""Every policy of a study: what its rules train, and what its report has a row for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlassay.config.fingerprints import model_id, model_policy, rl_id, sft_id, sft_policy
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A folder of weights, or of a model before any training, and what it is made from."""

    folder: str
    """Where it lies, relative to the study's results: `models/<id>`, `sft/<id>[/seed<k>]` or `runs/<arm>/seed<k>`."""
    stage: Literal["model", "sft", "rl"]
    """What made it."""
    recipe: Recipe
    """The recipe of its arm, or of the first arm that uses it; of a model, the first arm whose RL starts from it."""
    fingerprint: str
    """Identifies its weights within its folder."""
    arm: str | None = None
    """Its arm; None for a policy that arms may share."""
    seed: int | None = None
    """Its seed; None for a policy that seeds share."""


def policies(study: Study) -> dict[str, Policy]:
    """The policies by folder: models before training, then warm starts, then runs, each in the order of the study."""
    models: dict[str, Policy] = {}
    starts: dict[str, Policy] = {}
    runs: dict[str, Policy] = {}
    for name, arm in study.arms.items():
        recipe = arm.recipe
        model = model_policy(study, recipe)
        if model not in models or (recipe.sft is None and models[model].recipe.sft is not None):
            made_from = model_id(study, recipe)
            models[model] = Policy(folder=model, stage="model", recipe=recipe, fingerprint=made_from)
        for seed in study.seeds:
            start = sft_policy(study, recipe, seed)
            if start is not None and recipe.sft is not None:
                own = seed if recipe.sft.per_seed else None
                made_from = sft_id(study, recipe)
                starts.setdefault(
                    start, Policy(folder=start, stage="sft", recipe=recipe, fingerprint=made_from, seed=own)
                )
            run = Layout(root=Path()).run(name, seed)
            made_from = rl_id(study, name, seed)
            runs[run] = Policy(folder=run, stage="rl", recipe=recipe, fingerprint=made_from, arm=name, seed=seed)
    return models | starts | runs
