"""What our trainer adds to a training step: `CreditGRPOTrainer` with uniform credit against `trl.GRPOTrainer`.

Both train the built-in model on 128 completions of 16 tokens in one process. They take turns step by step, from the
same seed each time, so that both do the same work and share whatever else the machine does. Ours also writes its
rollouts, as in a study. The ratio is printed last; the aim is at most 1.02.
Run from the project's root: python -m benchmarks.step_time [--steps N]
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.turns import build, compare, race
from rlassay.config import load_study
from rlassay.credit import uniform
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rollouts import ShardWriter, rollout_table


def main() -> None:
    """Print the median step of each trainer, and the ratio last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=30, help="steps of each trainer that count [%(default)s]")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        trainers = [
            build(GRPOTrainer, layout, steps),
            build(CreditGRPOTrainer, layout, steps, credit=uniform),
        ]
        trainers[1].xp_listeners.append(ShardWriter(layout.root / "rollouts", rollout_table))
        plain, ours = race(trainers)
    print(f"TRL {median(plain):.3f} s per step, ours {median(ours):.3f} s ({steps} steps each)")
    compare("ours over TRL", ours, plain)


if __name__ == "__main__":
    main()
