"""CPU time that token credit adds to a training step: all parts together, and each alone, against uniform credit.

Trainers of the built-in model on 128 completions of 16 tokens take turns step by step in one process, from the same
seed each time and at a learning rate of nearly 0, so that all do the same work. `one mask` measures perception with
one mask per prompt (`signals.perception.mask_per: prompt`). The ratio of all credit with one mask comes last; the
target is at most 1.15.
Run from the project's root: python -m benchmarks.credit_step_time [--steps N]
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.turns import build, compare, race
from rlassay.config import load_study
from rlassay.credit import CREDITS, CreditPart
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training import CreditGRPOTrainer

ENTROPY = partial(CREDITS["entropy_filter"], fraction=0.2)
ATTENTION = partial(CREDITS["attention_weights"], sigma=1.0)
PERCEPTION = [partial(CREDITS["perception_filter"], fraction=0.2), CREDITS["trajectory_scaling"]]
ALL = [ENTROPY, ATTENTION, *PERCEPTION]
CREDIT: dict[str, list[CreditPart]] = {
    "uniform": [CREDITS["uniform"]],
    "entropy": [ENTROPY],
    "attention": [ATTENTION],
    "perception": PERCEPTION,
    "all credit": ALL,
    "perception, one mask": PERCEPTION,
    "all credit, one mask": ALL,
}


def plan(name: str) -> SignalPlan:
    """The measurement of an entry of `CREDIT`."""
    return SignalPlan(masking=Masking(block=4), mask_per="prompt" if "one mask" in name else "completion")


def main() -> None:
    """Print each step time over the uniform one, all credit last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of each trainer that count [%(default)s]")
    steps = parser.parse_args().steps
    still = {"learning_rate": 1e-12}
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        trainers = [
            build(CreditGRPOTrainer, layout, steps, still, credit=parts, signals=plan(name))
            for name, parts in CREDIT.items()
        ]
        uniform, *others = race(trainers, time.process_time)
    print(f"uniform: {median(uniform):.3f} CPU seconds per step (median of {steps})")
    for name, seconds in zip(list(CREDIT)[1:], others, strict=True):
        compare(f"{name} over uniform", seconds, uniform)


if __name__ == "__main__":
    main()
