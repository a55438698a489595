"""The logits that a trainer samples from."""

from typing import Any

import torch


def sampled_steps(trainer: Any) -> list[torch.Tensor]:
    """A list that the trainer fills as it samples: the logits of the last position, one entry per forward pass."""
    steps: list[torch.Tensor] = []
    sample = trainer._generate_single_turn

    def watched(*args: Any, **kwargs: Any) -> Any:
        hook = trainer.model.register_forward_hook(lambda *of_pass: steps.append(of_pass[-1].logits[:, -1]))
        try:
            return sample(*args, **kwargs)
        finally:
            hook.remove()

    trainer._generate_single_turn = watched
    return steps
