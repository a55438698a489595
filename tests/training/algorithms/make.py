"""Groups made by hand."""

from typing import Any

import torch

from rlassay.training.algorithms.groups import SampledGroup


def group(name: str, rewards: list[float], length: int = 3) -> SampledGroup:
    """A group of one reward whose completions have `length` tokens each."""
    values = torch.tensor(rewards)[:, None]
    row: dict[str, Any] = {"prompt": name, "prompt_id": name}
    return SampledGroup(
        row=row,
        prompt_id=name,
        prompt_tokens=[[5, 6]] * len(rewards),
        completions=[f"{name} {index}" for index in range(len(rewards))],
        completion_ids=[[7] * length for _ in rewards],
        sampling_logps=None,
        raw=values,
        rewards_per_func=values,
        failed={},
        metrics={},
    )
