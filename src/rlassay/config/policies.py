"""From a policy's folder back to the part of the study that makes it."""

from collections.abc import Iterator

from rlassay.config.fingerprints import model_policy, sft_policy
from rlassay.config.study import Study
from rlassay.config.training import Recipe


def find_policy(study: Study, policy: str) -> tuple[Recipe, int]:
    """The recipe and the seed behind a policy folder such as `runs/<arm>/seed<k>`, `sft/<id>` or `models/<id>`.

    Arms that share a policy agree on everything that decides it, so the first one's recipe stands for all. The seed of
    a warm start shared by all seeds is its own; that of an untrained model is 0.

    Errors: ValueError naming the policies that the study has.
    """
    known = dict(_policies(study))
    if policy not in known:
        raise ValueError(f"study {study.id!r} has no policy {policy!r}; expected one of {', '.join(sorted(known))}")
    return known[policy]


def _policies(study: Study) -> Iterator[tuple[str, tuple[Recipe, int]]]:
    for name, arm in reversed(study.arms.items()):
        recipe = arm.recipe
        yield model_policy(study, recipe), (recipe, 0)
        for seed in study.seeds:
            yield f"runs/{name}/seed{seed}", (recipe, seed)
            if recipe.sft is not None:
                yield str(sft_policy(study, recipe, seed)), (recipe, seed if recipe.sft.per_seed else recipe.sft.seed)
