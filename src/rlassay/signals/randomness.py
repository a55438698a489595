"""Random numbers that belong to a completion, whatever batch or process it is in."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def generator(seed: int, step: int, prompt_id: str, sample: int, purpose: str) -> np.random.Generator:
    """Random numbers of one completion for one purpose; a counter-based generator keyed by a digest of all of these.

    Args:
        seed: the run's.
        step: training step that samples the completion.
        prompt_id: of its prompt.
        sample: its index among the completions of that prompt.
        purpose: so that several uses do not draw the same numbers.
    """
    told = "\0".join([str(seed), str(step), prompt_id, str(sample), purpose])
    key = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def draws(
    seed: int, step: int, prompt_ids: Sequence[str], samples: Sequence[int], length: int
) -> Float[Tensor, "batch time"]:
    """One number in [0, 1) per token; the first ones of a completion do not depend on `length`.

    Args:
        seed: the run's.
        step: training step that samples the completions.
        prompt_ids: one per completion.
        samples: index of each completion among those of its prompt.
        length: T.
    """
    rows = [
        generator(seed, step, prompt_id, sample, "draws").random(length, dtype=np.float32)
        for prompt_id, sample in zip(prompt_ids, samples, strict=True)
    ]
    return torch.from_numpy(np.stack(rows))
