"""The completions of a group that train, against all subsets."""

import math
from itertools import combinations

import pytest
import torch

from rlassay.training.algorithms.subset import keep_rows, max_variance_subset, subset_mask


def chosen(rewards: list[float], count: int) -> list[int]:
    return torch.nonzero(max_variance_subset(torch.tensor(rewards), count)).flatten().tolist()


def test_known_subsets():
    assert chosen([1.0, 0.0, 0.0, 0.0, 1.0, 1.0], 2) == [0, 1]
    assert chosen([1.0, 0.0, 0.0, 0.0, 1.0, 1.0], 4) == [0, 1, 2, 4]  # as many right as wrong ones
    assert chosen([1.0, 0.0, 0.0, 0.0, 0.0], 4) == [0, 1, 2, 3]  # the only right one stays
    assert chosen([0.5, 0.5, 0.9, 0.1, 0.4], 3) == [2, 3, 4]  # .9, .1 and .4: .1089; with .5: .1067
    assert chosen([1.0, 1.0, 1.0], 2) == [0, 1]
    assert chosen([0.0, math.nan, 1.0, 0.4], 3) == [0, 2, 3]
    assert chosen([0.0, math.nan, 1.0, math.nan], 3) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(40))
def test_no_subset_has_a_larger_variance(seed: int):
    generator = torch.Generator().manual_seed(seed)
    size = 3 + seed % 5
    rewards = torch.rand(size, generator=generator)
    if seed % 2:
        rewards = (4 * rewards).round()  # with ties
    for count in range(1, size + 1):
        best = max(rewards[list(rows)].double().var(correction=0).item() for rows in combinations(range(size), count))
        mask = max_variance_subset(rewards, count)
        assert mask.sum() == count
        assert rewards[mask].double().var(correction=0).item() == pytest.approx(best, abs=1e-9)


def test_each_group_chooses_for_itself():
    totals = torch.tensor([0.0, 0.2, 1.0, 5.0, 3.0, 4.0])
    assert subset_mask(totals, 3, 2).tolist() == [True, False, True, True, True, False]


def test_a_count_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="train_on: got 4, expected 1 to 3"):
        max_variance_subset(torch.zeros(3), 4)


def test_kept_completions_keep_their_own_images():
    # Three completions with 1, 2 and 1 images; an image of h x w patches has h * w rows of pixels.
    grids = torch.tensor([[1, 1, 2], [1, 2, 2], [1, 1, 1], [1, 3, 1]])
    output = {
        "completion_ids": torch.tensor([[1, 2], [3, 4], [5, 6]]),
        "pixel_values": torch.arange(10.0)[:, None],
        "image_grid_thw": grids,
        "num_images": [1, 2, 1],
        "num_items_in_batch": torch.tensor(6),
        "old_per_token_logps": None,
    }
    kept = keep_rows(output, torch.tensor([False, True, True]))
    assert kept["completion_ids"].tolist() == [[3, 4], [5, 6]]
    assert kept["pixel_values"].flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert kept["image_grid_thw"].tolist() == grids[1:].tolist()
    assert kept["num_images"] == [2, 1]
    assert kept["old_per_token_logps"] is None
