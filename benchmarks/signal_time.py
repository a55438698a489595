"""CPU time of the parts of measuring all signals of a training step, with one mask per prompt.

The built-in model trains on 128 completions of 16 tokens of 16 prompts; each part is timed where it is called.
Run from the project's root: python -m benchmarks.signal_time [--steps N]
"""

import argparse
import tempfile
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.credit_step_time import ALL, plan
from benchmarks.turns import WARM_UP, build
from rlassay.config import load_study
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.signals import inputs, measuring
from rlassay.training import CreditGRPOTrainer

PARTS: dict[str, tuple[Any, str]] = {
    "all": (measuring.SignalComputer, "__call__"),
    "inputs of the step's prompts": (measuring, "sampled_inputs"),
    "of these, the processor": (inputs, "process_prompt"),
    "lengths of system blocks": (measuring, "with_system_blocks"),
    "masked images": (measuring, "masked_inputs"),
    "forward passes and log-probs": (measuring, "teacher_forced"),
}
"""Name -> where the timed function is looked up."""


def timed(seconds: dict[str, list[float]], name: str) -> None:
    """Have the function of a part add its CPU seconds to the last entry of `seconds[name]`, one entry per step."""
    place, function = PARTS[name]
    run = getattr(place, function)

    @wraps(run)
    def clocked(*args: Any, **options: Any) -> Any:
        if name == "all":
            for each in PARTS:
                seconds[each].append(0.0)
        began = time.process_time()
        try:
            return run(*args, **options)
        finally:
            seconds[name][-1] += time.process_time() - began

    setattr(place, function, clocked)


def main() -> None:
    """Print milliseconds per step of each part."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=20, help="steps that count [%(default)s]")
    steps = parser.parse_args().steps
    seconds: dict[str, list[float]] = defaultdict(list)
    for name in PARTS:
        timed(seconds, name)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        build(
            CreditGRPOTrainer,
            layout,
            steps,
            {"learning_rate": 1e-12},
            credit=ALL,
            signals=plan("all credit, one mask"),
        ).train()
    for name, each in seconds.items():
        print(f"{name}: {1000 * median(each[WARM_UP:]):.1f} CPU ms per step (median of {steps})")


if __name__ == "__main__":
    main()
