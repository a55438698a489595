"""Time that token credit adds to a training step: all parts together, and each alone, against uniform credit.

Trainers of the built-in model on 128 completions of 16 tokens take turns step by step in one process, from the same
seed each time and at a learning rate of nearly 0, so that all do the same work. The ratio of all credit comes last;
the target is at most 1.35.
Run from the project's root: python -m benchmarks.credit_step_time [--steps N]
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.turns import build, race
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
CREDIT: dict[str, list[CreditPart]] = {
    "uniform": [CREDITS["uniform"]],
    "entropy": [ENTROPY],
    "attention": [ATTENTION],
    "perception": PERCEPTION,
    "all credit": [ENTROPY, ATTENTION, *PERCEPTION],
}


def main() -> None:
    """Print each step time over the uniform one, all credit last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of each trainer that count [%(default)s]")
    steps = parser.parse_args().steps
    plan, still = SignalPlan(masking=Masking(block=4)), {"learning_rate": 1e-12}
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        trainers = [
            build(CreditGRPOTrainer, layout, steps, still, credit=parts, signals=plan) for parts in CREDIT.values()
        ]
        uniform, *others = race(trainers)
    print(f"uniform: {median(uniform):.3f} s per step (median of {steps})")
    for name, seconds in zip(list(CREDIT)[1:], others, strict=True):
        ratios = [mine / theirs for mine, theirs in zip(seconds, uniform, strict=True)]
        print(f"step time, {name} over uniform: {median(ratios):.3f} (median of {steps} pairs)")


if __name__ == "__main__":
    main()
