"""Useful share of the generated tokens when half of the prompts are dead: dynamic sampling against plain GRPO.

A token is useful if it trains in a group whose rewards vary. On half of the 64 prompts every completion earns nothing;
on the others chance decides. Plain GRPO generates and trains on the dead groups; dynamic sampling trains on none, but
generates them; with `revisit` it also passes over most prompts that were dead last time. The learning rate is nearly 0,
so that all trainers see the same policy. The last line is the share with `revisit` over that of plain GRPO; the target
is at least 1.5.
Run from the project's root: python -m benchmarks.dynamic_sampling [--steps N]
"""

import argparse
import tempfile
from typing import Any

from datasets import Dataset  # pyright: ignore[reportMissingTypeStubs]
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from rlassay.advantages import in_groups
from rlassay.config.model import TinyLM
from rlassay.models.tiny import build_tiny_lm
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.rollouts import Rollout

PROMPTS = 64
PLANS = {
    "plain GRPO": GroupPlan(),
    "dynamic sampling": GroupPlan(dynamic_sampling=DynamicSampling(max_resample=20)),
    "dynamic sampling, revisit 0.25": GroupPlan(dynamic_sampling=DynamicSampling(max_resample=20, revisit=0.25)),
}


def half_dead(completions: list[str], prompt_id: list[str], **columns: Any) -> list[float]:
    """The parity of the completion's number of letters; 0 for every other prompt."""
    pairs = zip(completions, prompt_id, strict=True)
    return [float(int(name[1:]) % 2 and len(completion) % 2) for completion, name in pairs]


def shares(plan: GroupPlan, steps: int, folder: str) -> tuple[float, float]:
    """Useful tokens over trained tokens, and over generated tokens."""
    model, tokenizer = build_tiny_lm(
        TinyLM(kind="tiny_lm", layers=1, width=32, vocab_size=300), ["a few words to learn from"]
    )
    rows = [{"prompt": f"number {index}", "prompt_id": f"p{index}"} for index in range(PROMPTS)]
    trainer: Any = CreditGRPOTrainer(
        model=model,
        reward_funcs=half_dead,
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            learning_rate=1e-12,
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=12,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        groups=plan,
    )
    trainer.remove_callback(PrinterCallback)
    seen: list[Rollout] = []
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    generated = sum(sum(rollout.token_counts) for rollout in seen)
    batches = [rollout for rollout in seen if rollout.use is None or "trained" in rollout.use]
    trained = sum(sum(rollout.token_counts) for rollout in batches)
    useful = sum(_useful(rollout) for rollout in batches)
    return useful / trained, useful / generated


def _useful(rollout: Rollout) -> int:
    """Tokens of the groups whose rewards vary."""
    size = rollout.num_generations
    varies = in_groups(rollout.raw[:, 0], size).std(dim=1) > 0
    return sum(sum(rollout.token_counts[place * size :][:size]) for place, good in enumerate(varies) if bool(good))


def main() -> None:
    """Print the shares of each plan, and the ratio per generated token last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of each trainer [%(default)s]")
    steps = parser.parse_args().steps
    found: dict[str, tuple[float, float]] = {}
    for name, plan in PLANS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = shares(plan, steps, folder)
        print(f"{name}: {found[name][0]:.3f} of the trained tokens are useful, {found[name][1]:.3f} of the generated")
    plain, _, picky = found.values()
    print(f"useful share per generated token, revisit 0.25 over plain GRPO: {picky[1] / plain[1]:.2f}")


if __name__ == "__main__":
    main()
