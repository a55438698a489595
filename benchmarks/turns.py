"""Trainers that take turns step by step in one process, so that they share whatever else the machine does."""

import threading
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from accelerate.state import GradientState
from transformers import PrinterCallback, TrainerCallback

from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.config.training import Recipe
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models.policy import build_policy, chat_format, load_policy, training_rows
from rlassay.records import read_rows
from rlassay.training.prompts import prompt_dataset, prompt_order
from rlassay.training.rl import generation_batches, group_rewards, grpo_arguments

WARM_UP = 3
"""Steps at the beginning that do not count."""


class Turns(TrainerCallback):
    """Times whole steps, logging and data included, and switches to the next trainer after each."""

    def __init__(self, mine: threading.Semaphore, following: threading.Semaphore, clock: Callable[[], float]) -> None:
        self.mine = mine
        self.following = following
        self.clock = clock
        self.seconds: list[float] = []
        self.began: float | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # accelerate keeps this flag once per process, and the trainers that come in between set it too.
        shared = GradientState()
        is_last: bool = shared.sync_gradients
        self._hand_over()
        self.mine.acquire()
        shared._set_sync_gradients(is_last)
        torch.manual_seed(state.global_step)
        self.began = self.clock()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._hand_over()

    def _hand_over(self) -> None:
        if self.began is not None:
            self.seconds.append(self.clock() - self.began)
            self.following.release()


def race(trainers: list[Any], clock: Callable[[], float] = time.perf_counter) -> list[list[float]]:
    """Seconds of each step of each trainer, those of the warm-up left out.

    `time.process_time` as the clock counts the CPU seconds of this process: other jobs of a busy machine do not count.
    """
    baton = [threading.Semaphore(int(place == 0)) for place in range(len(trainers))]
    turns = [Turns(baton[place], baton[(place + 1) % len(baton)], clock) for place in range(len(baton))]
    threads = []
    for trainer, turn in zip(trainers, turns, strict=True):
        trainer.add_callback(turn)
        threads.append(threading.Thread(target=trainer.train))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [turn.seconds[WARM_UP:] for turn in turns]


def compare(title: str, measured: Sequence[float], reference: Sequence[float]) -> None:
    """Print the median of the ratios of two trainers' steps, pair by pair."""
    ratios = [mine / theirs for mine, theirs in zip(measured, reference, strict=True)]
    print(f"step time, {title}: {median(ratios):.3f} (median of {len(ratios)} pairs)")


def build(
    trainer_class: Any,
    layout: Layout,
    steps: int,
    rl: dict[str, Any] | None = None,
    recipe: Recipe | None = None,
    **ours: Any,
) -> Any:
    """A trainer of one run of a recipe, from the untrained model, with `steps` steps after the warm-up.

    Args:
        trainer_class: TRL's or ours.
        layout: where the data lie.
        steps: steps that count.
        rl: differences in the RL section.
        recipe: None takes that of the built-in study's first run.
        ours: keywords of our trainer, and any that replace those below.
    """
    recipe = recipe or policies(load_study("digits"))["runs/base/seed1"].recipe
    changes = {"max_steps": steps + WARM_UP, "save_steps": steps + WARM_UP + 1, **(rl or {})}
    recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update=changes)})
    rows = {row.prompt_id: row for row in read_rows(layout.split("train"))}
    start = layout.root / "start"  # TRL loads a reference model from the policy's own path
    for part in build_policy(recipe.model, training_rows(layout)):
        part.save_pretrained(str(start))
    model, processor = load_policy(recipe.model, start)
    arguments = grpo_arguments(recipe, 1, layout.root / trainer_class.__name__, on_cpu=True)
    order = prompt_order(list(rows), *generation_batches(recipe.rl, arguments), seed=1)
    keywords = {
        "model": model,
        "reward_funcs": group_rewards(recipe, rows, model, processor),
        "args": arguments,
        "train_dataset": prompt_dataset(rows, order, chat_format(processor, recipe), StudyImages(layout.data)),
        "processing_class": processor,
    }
    trainer = trainer_class(**keywords | ours)
    trainer.remove_callback(PrinterCallback)
    return trainer
