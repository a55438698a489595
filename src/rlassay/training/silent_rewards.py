"""A warning about rewards that are paid and say nothing."""

import logging
from collections import Counter
from collections.abc import Mapping

MOST = 0.8
"""Share of groups above which a reward that says the same of all completions is worth a warning."""
MINIMUM = 64
"""Groups that must have been judged before."""
logger = logging.getLogger(__name__)


class SilentRewards:
    """Warns, once for each, of weighted rewards that tell no completions apart in most groups since the job started."""

    def __init__(self) -> None:
        self.silent: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.warned: set[str] = set()

    def __call__(self, silent: Mapping[str, float], num_groups: int) -> None:
        """Count a batch.

        Args:
            silent: for each reward whose weight is not 0, the share of groups in which it says the same of all.
            num_groups: groups of the batch.
        """
        for name, share in silent.items():
            self.silent[name] += round(share * num_groups)
            self.groups[name] += num_groups
            rate = self.silent[name] / self.groups[name]
            if self.groups[name] >= MINIMUM and rate > MOST and name not in self.warned:
                self.warned.add(name)
                logger.warning(
                    "reward %s says the same of all completions of a prompt in %.0f %% of %d groups so far: it has a "
                    "weight, and teaches next to nothing. Look at its options, or at rewards/%s/frac_zero_std.",
                    name,
                    100 * rate,
                    self.groups[name],
                    name,
                )
