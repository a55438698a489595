"""Of each group's n scored completions, train on the m whose rewards vary most."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from rlassay.advantages import in_groups


def max_variance_subset(totals_G: Float[Tensor, "size"], count: int) -> Bool[Tensor, "size"]:
    """The `count` completions of a group whose total rewards have the largest variance.

    Such a subset consists of the lowest and the highest rewards, k and `count - k` of them; all k are tried. Among
    equally good ones, the k nearest to half wins; among equal rewards, the earlier completions. Completions without a
    reward (NaN) are chosen only if there are too few others.

    Args:
        totals_G: (G,), total rewards.
        count: completions to choose, from 1 to G; else ValueError.

    Source: PODS (arXiv 2504.13818), max-variance down-sampling and its lemma on the form of the subset.
    """
    if not 1 <= count <= len(totals_G):
        raise ValueError(f"train_on: got {count}, expected 1 to {len(totals_G)}, the completions of a group")
    scored = torch.nonzero(~torch.isnan(totals_G)).flatten()
    unscored = torch.nonzero(torch.isnan(totals_G)).flatten()
    chosen = torch.zeros_like(totals_G, dtype=torch.bool)
    if len(scored) <= count:
        chosen[torch.cat([scored, unscored[: count - len(scored)]])] = True
        return chosen
    values = totals_G[scored].double()
    lowest, highest = values.argsort(stable=True), values.argsort(stable=True, descending=True)
    best, best_variance = torch.empty(0), -1.0
    for low in sorted(range(count + 1), key=lambda number: abs(2 * number - count)):
        picked = _ends(lowest, highest, low, count)
        variance = float(values[picked].var(correction=0))
        if variance > best_variance + 1e-12:
            best, best_variance = picked, variance
    chosen[scored[best]] = True
    return chosen


def _ends(lowest: Tensor, highest: Tensor, low: int, count: int) -> Tensor:
    """The `low` lowest, then the highest of the others until there are `count`; earlier ones first among equals."""
    bottom = lowest[:low]
    others = highest[~torch.isin(highest, bottom)]
    return torch.cat([bottom, others[: count - low]])


def subset_mask(totals: Float[Tensor, "batch"], num_generations: int, count: int) -> Bool[Tensor, "batch"]:
    """`max_variance_subset` of each group of a batch.

    Args:
        totals: (B,), total rewards; the completions of a prompt are neighbours.
        num_generations: completions per prompt.
        count: completions to choose of each.
    """
    return torch.cat([max_variance_subset(group, count) for group in in_groups(totals, num_generations)])


def keep_rows(output: dict[str, Any], kept_B: Bool[Tensor, "batch"]) -> dict[str, Any]:
    """The completions of a batch that train, with their own images.

    Args:
        output: result of TRL's `_generate_and_score_completions`.
        kept_B: (B,), which completions to keep.

    `num_items_in_batch`, which has no axis, is left as it is.
    """
    rows = torch.nonzero(kept_B).flatten()
    split: dict[str, Any] = split_pixel_values_by_grid(output)

    def picked(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows.to(value.device)] if value.ndim else value
        return [value[int(row)] for row in rows]

    kept: dict[str, Any] = {name: value if value is None else picked(value) for name, value in split.items()}
    return unsplit_pixel_values_by_grid(kept)
