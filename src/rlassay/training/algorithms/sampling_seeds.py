# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""Seeds of the sampler's calls, for vLLM and for common random numbers.

Runs with the same seed can have common random numbers.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class SamplingSeeds:
    """Seeds of the sampler's calls, from the run's seed, the step and the call's number.

    A resumed run therefore samples the same completions as an uninterrupted one.
    """

    def __init__(self, *, common_random_numbers: bool = False) -> None:
        self.common_random_numbers = common_random_numbers
        self.calls = (-1, 0)
        """Step of the last call of the sampler, and the calls at that step."""

    @contextmanager
    def common(self, trainer: Any) -> Generator[None, None, None]:
        """In the body transformers samples from the call's seed, if `common_random_numbers` is set.

        Runs of one seed then draw the same random numbers at every step. Without it they do so until a batch in which
        their longest completions differ: from then on one has drawn more numbers than the other. vLLM always uses seeds
        of calls.
        """
        if not self.common_random_numbers or trainer.use_vllm:
            yield
            return
        with self.seeded(trainer, trainer.accelerator.process_index):
            yield

    @contextmanager
    def seeded(self, trainer: Any, group: int) -> Generator[None, None, None]:
        """In the body torch draws from the seed of the next call; afterwards its random state is restored.

        Args:
            trainer: `CreditGRPOTrainer`, which has no types.
            group: processes of the same group draw the same numbers.
        """
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.next(trainer, group))
            yield

    def next(self, trainer: Any, group: int) -> int:
        """The seed of the next call of the sampler, 32 bits."""
        step = trainer.state.global_step
        last, count = self.calls
        self.calls = (step, count + 1 if last == step else 0)
        seeds = np.random.SeedSequence([trainer.args.seed, *self.calls, group])
        return int(seeds.generate_state(1)[0])
