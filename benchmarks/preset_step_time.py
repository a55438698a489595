"""Step time of each preset of `config/algorithms`, relative to TRL's plain GRPO.

Ten trainers train the built-in model on 128 completions of 16 tokens in one process: TRL's `GRPOTrainer`, ours with
each preset, and ours with `grpo` and the KL measured. They take turns step by step, so that they share whatever else
the machine does. The reward is the parity of a completion's length: nearly every group varies, and dynamic sampling
rarely has to sample again (for its price where groups are dead, see benchmarks/dynamic_sampling.py). The largest ratio
is printed last.
Run from the project's root: python -m benchmarks.preset_step_time [--steps N]
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.turns import build, race
from rlassay.config import Study, load_study
from rlassay.config.load import read_yaml, resolve_study
from rlassay.config.settings import Diagnostics
from rlassay.data import run_prepare_data
from rlassay.layout import Layout
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rl import advantage_estimator, credit_parts, critic_options, group_plan, kl_control, signal_plan

PRIMARY = {"set": "test", "metric": "choice_accuracy", "mode": "sampled"}
PRESETS = ("grpo", "dr_grpo", "dapo", "gspo", "rloo", "remax", "ppo", "vppo")
MEASURED = ", KL measured"
ROWS = (*PRESETS, f"grpo{MEASURED}")


def parity(completions: list[Any], **columns: Any) -> list[float]:
    """1 for an odd number of letters."""
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


def with_preset(name: str) -> Study:
    """The built-in study with one reward and the preset's values."""
    content = read_yaml(Path("config/studies/digits.yaml"))
    arms = {"base": {"label": name}}
    rewards = {"choice_accuracy": {"weight": 1.0}}
    content = {key: value for key, value in content.items() if key not in ("credit", "primary")}
    return resolve_study(content | {"algorithm": name, "arms": arms, "rewards": rewards, "primary": PRIMARY})


def trainer_of(row: str, layout: Layout, steps: int) -> Any:
    """Our trainer as the RL stage builds it for a preset."""
    study = with_preset(row.removesuffix(MEASURED))
    recipe = study.arms["base"].recipe
    diagnostics = Diagnostics(compute_attention_metrics=False, compute_kl_metrics=row.endswith(MEASURED))
    return build(
        CreditGRPOTrainer,
        layout,
        steps,
        recipe=recipe,
        reward_funcs=[parity],
        advantage=advantage_estimator(recipe.rl),
        critic=critic_options(recipe.rl),
        groups=group_plan(recipe.rl),
        kl=kl_control(recipe, diagnostics),
        credit=credit_parts(recipe),
        credit_denominator=recipe.credit_denominator,
        entropy_penalty=recipe.entropy_penalty_coef,
        signals=signal_plan(study, recipe, diagnostics),
    )


def main() -> None:
    """Print a line per preset, and the largest ratio last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=10, help="steps of each trainer that count [%(default)s]")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits"), layout)
        plain = build(GRPOTrainer, layout, steps, recipe=with_preset("grpo").arms["base"].recipe, reward_funcs=[parity])
        times = race([plain, *(trainer_of(name, layout, steps) for name in ROWS)])
    print("| preset | s per step | over TRL's GRPO |\n|---|---:|---:|")
    print(f"| TRL's `GRPOTrainer` | {median(times[0]):.2f} | 1.00 |")
    ratios = {}
    for name, seconds in zip(ROWS, times[1:], strict=True):
        ratios[name] = median(mine / theirs for mine, theirs in zip(seconds, times[0], strict=True))
        print(f"| {name} | {median(seconds):.2f} | {ratios[name]:.2f} |")
    largest = max(ratios, key=lambda name: ratios[name])
    print(f"largest step time over TRL's GRPO: {ratios[largest]:.2f}, {largest} (median of {steps} pairs)")


if __name__ == "__main__":
    main()
