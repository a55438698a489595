"""Micro-batches by token budget against TRL's padded ones, on completions of very different lengths.

Both train the built-in model on the same 64 completions per step: lengths are log-normal with median 60, cut at 512, so
that most are short and one or two reach the end. Sampling is left out: the completions are random tokens. TRL takes
eight micro-batches of 8 completions, ours micro-batches of at most `--tokens` tokens. The trainers take turns step by
step; the ratio of their CPU seconds is printed last, and the aim is at least 1.3. It takes about 50 CPU seconds.
Run from the project's root: python -m benchmarks.micro_batches [--steps N] [--tokens N]
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.turns import build, compare, race
from rlassay.config import load_study
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.training import CreditGRPOTrainer

MEDIAN, LONGEST, SPREAD = 60, 512, 1.0
"""Tokens of the median and of the longest completion, and the deviation of the logarithm."""
RL: dict[str, Any] = {
    **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8, "steps_per_generation": 8},
    **{"num_generations": 8, "max_completion_length": LONGEST},
}


def lengths(count: int, step: int) -> list[int]:
    """Tokens of each completion of a step; the last one is the longest possible."""
    drawn = torch.randn(count - 1, generator=torch.Generator().manual_seed(step))
    tokens = (math.log(MEDIAN) + SPREAD * drawn).exp().round().clamp(1, LONGEST)
    return [*tokens.int().tolist(), LONGEST]


def scripted(trainer: Any) -> Any:
    """The trainer, with random tokens of such lengths in place of sampling."""
    vocabulary = len(trainer._tokenizer)

    def generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(trainer.state.global_step)
        sampled = [
            torch.randint(10, vocabulary, (length,), generator=generator).tolist()
            for length in lengths(len(prompt_ids), trainer.state.global_step)
        ]
        return sampled, None

    trainer._generate_single_turn = generate
    return trainer


def main() -> None:
    """Print the median step of each trainer, and the ratio last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=4, help="steps of each trainer that count [%(default)s]")
    parser.add_argument("--tokens", type=int, default=4500, help="the budget [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits", "tiny"), layout)  # as many prompts as the steps take
        trainers = [
            scripted(build(GRPOTrainer, layout, args.steps, RL)),
            scripted(build(CreditGRPOTrainer, layout, args.steps, RL, max_tokens_per_micro_batch=args.tokens)),
        ]
        padded, ours = race(trainers, time.process_time)
    print(
        f"TRL {median(padded):.2f} CPU seconds per step, by token budget {median(ours):.2f} ({args.steps} steps each)"
    )
    compare("TRL over token budget", padded, ours)


if __name__ == "__main__":
    main()
