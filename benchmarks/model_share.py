"""Share of a study's CPU time that its models compute: one job of each kind, times the number of such jobs.

Model compute is the time inside the policy's forward passes, `generate`, backward passes and optimizer steps; the rest
of a job is Python's start, imports, images and tokens, rewards, and files. Each job is a process of its own and takes
the built-in study's first policy of its kind. Snakemake and the report are left out: they compute no model.
Run from the project's root: python -m benchmarks.model_share [--study NAME] [--scale tiny]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rlassay.cli.plans.estimates import estimate_stages
from rlassay.config import Study, load_study
from rlassay.config.policies import policies

COMPUTING = ("sft_train", "rl_train", "generate")
"""Stages that load a model."""


class ModelClock:
    """CPU seconds inside the outermost of the watched calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._began = 0.0

    def enter(self, *_: Any) -> None:
        """A watched call begins."""
        if self._depth == 0:
            self._began = time.process_time()
        self._depth += 1

    def leave(self, *_: Any) -> None:
        """A watched call ends."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.process_time() - self._began

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of a function or method."""
        call: Callable[..., Any] = getattr(owner, name)

        @wraps(call)
        def counted(*args: Any, **options: Any) -> Any:
            self.enter()
            try:
                return call(*args, **options)
            finally:
                self.leave()

        setattr(owner, name, counted)


def watched() -> ModelClock:
    """A clock of everything that torch models compute in this process."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
    from transformers.generation.utils import GenerationMixin

    clock = ModelClock()
    clock.watch(torch.nn.Module, "__call__")
    clock.watch(torch.autograd, "backward")
    clock.watch(GenerationMixin, "generate")
    register_optimizer_step_pre_hook(clock.enter)
    register_optimizer_step_post_hook(clock.leave)
    return clock


def run_job(arguments: list[str]) -> None:
    """In a process of its own: run a stage, and print the CPU seconds of all and of the model as the last line."""
    clock = watched() if arguments[0] in COMPUTING else ModelClock()
    from rlassay.cli.stages import main as stage

    assert stage(arguments) == 0
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    print(json.dumps({"total": total, "model": clock.seconds}))


def jobs(study: Study) -> dict[str, list[str]]:
    """Stage -> arguments of its first job, in an order in which each finds its inputs."""
    first: dict[str, str] = {}
    for name, policy in policies(study).items():
        first.setdefault(policy.stage, name)
    answers = ["--policy", first["rl"], "--set", study.primary.set]
    trained = {f"{stage}_train": ["--policy", first[stage]] for stage in ("sft", "rl") if stage in first}
    return {"prepare_data": [], **trained, "generate": answers, "score": answers}


def main() -> None:
    """Print the share of each kind of job, and that of the study last."""
    if sys.argv[1:2] == ["job"]:
        run_job(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--study", default="digits")
    parser.add_argument("--scale", default="null")
    args = parser.parse_args()
    study = load_study(args.study, None if args.scale == "null" else args.scale)
    counts = {each.stage: each.jobs for each in estimate_stages(study)}
    sums = {"total": 0.0, "model": 0.0}
    with tempfile.TemporaryDirectory() as results:
        (Path(results) / "config.yaml").write_text(f"study: {args.study}\ntracking: {{enabled: false}}\n")
        where = ["--study", args.study, "--scale", args.scale, "--results", results]
        where += ["--config", f"{results}/config.yaml"]
        for stage, more in jobs(study).items():
            command = [sys.executable, "-m", "benchmarks.model_share", "job", stage, *where, *more]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            seconds = json.loads(printed.splitlines()[-1])
            count = counts[stage]
            sums = {name: value + count * seconds[name] for name, value in sums.items()}
            share = seconds["model"] / seconds["total"]
            print(f"{stage}: {count} x {seconds['total']:.1f} CPU seconds, {share:.0%} of them model compute")
    print(f"{study.id}: {sums['total']:.0f} CPU seconds, {sums['model'] / sums['total']:.0%} of them model compute")


if __name__ == "__main__":
    main()
