"""What our trainer adds to a training step: `CreditGRPOTrainer` with uniform credit against `trl.GRPOTrainer`.

Both train the built-in model on 128 completions of 16 tokens in one process. They take turns step by step, from the
same seed each time, so that both do the same work and share whatever else the machine does. Ours also writes its
rollouts, as in a study. The ratio is printed last; the aim is at most 1.02.
Run from the project's root: python -m benchmarks.step_time [--steps N]
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.credit import uniform
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.models import build_policy, training_rows
from rlassay.records import read_rows
from rlassay.training import CreditGRPOTrainer
from rlassay.training.prompts import prompt_dataset, prompt_order
from rlassay.training.rl import end_token_ids, generation_batches, group_rewards, grpo_arguments
from rlassay.training.rollouts import RolloutWriter

WARM_UP = 3
"""Steps at the beginning that do not count."""


class Turns(TrainerCallback):
    """Times whole steps, logging and data included, and hands over to the other trainer after each."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore) -> None:
        self.mine = mine
        self.other = other
        self.seconds: list[float] = []
        self.began: float | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._hand_over()
        self.mine.acquire()
        torch.manual_seed(state.global_step)
        self.began = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._hand_over()

    def _hand_over(self) -> None:
        if self.began is not None:
            self.seconds.append(time.perf_counter() - self.began)
            self.other.release()


def main() -> None:
    """Print the median step of each trainer, and the ratio last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=30, help="steps of each trainer that count [%(default)s]")
    steps = parser.parse_args().steps
    first, second = threading.Semaphore(1), threading.Semaphore(0)
    turns = [Turns(first, second), Turns(second, first)]
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        trainers = [
            build(GRPOTrainer, layout, steps + WARM_UP, turns[0]),
            build(CreditGRPOTrainer, layout, steps + WARM_UP, turns[1], credit=uniform),
        ]
        trainers[1].xp_listeners.append(RolloutWriter(layout.root / "rollouts"))
        threads = [threading.Thread(target=trainer.train) for trainer in trainers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    plain, ours = (each.seconds[WARM_UP:] for each in turns)
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    print(f"TRL {statistics.median(plain):.3f} s per step, ours {statistics.median(ours):.3f} s ({steps} steps each)")
    print(f"step time, ours over TRL: {statistics.median(ratios):.3f} (median of {steps} pairs)")


def build(trainer_class: Any, layout: Layout, steps: int, turns: Turns, **ours: Any) -> Any:
    """A trainer of the built-in study's first run, from the untrained model."""
    recipe = policies(load_study("digits"))["runs/base/seed1"].recipe
    recipe = recipe.model_copy(
        update={"rl": recipe.rl.model_copy(update={"max_steps": steps, "save_steps": steps + 1})}
    )
    rows = list(read_rows(layout.split("train")))
    model, processor = build_policy(recipe.model, training_rows(layout))
    arguments = grpo_arguments(recipe, 1, layout.root / trainer_class.__name__, on_cpu=True)
    order = prompt_order([row.prompt_id for row in rows], *generation_batches(recipe.rl, arguments), seed=1)
    trainer = trainer_class(
        model=model,
        reward_funcs=group_rewards(recipe, rows, end_token_ids(model, processor)),
        args=arguments,
        train_dataset=prompt_dataset(rows, order, processor, layout.data, told=False),
        processing_class=processor,
        callbacks=[turns],
        **ours,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


if __name__ == "__main__":
    main()
