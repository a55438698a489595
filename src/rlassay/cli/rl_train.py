"""Train one arm with one seed by reinforcement learning, from its warm start."""

import argparse

from rlassay.cli.common import add_stage_arguments, check_fingerprint, known, load, main
from rlassay.config.policies import policies


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments and the run."""
    add_stage_arguments(parser)
    parser.add_argument("--policy", required=True, help="run to train: runs/<arm>/seed<k>")


def run(args: argparse.Namespace) -> int:
    """Train, or go on after a kill; 0. A StudyError passes through."""
    study, layout, settings = load(args)
    runs = {folder: policy for folder, policy in policies(study).items() if policy.stage == "rl"}
    policy = runs[known("--policy", args.policy, runs)]
    check_fingerprint(args, policy.fingerprint)
    from rlassay.tracking import follow
    from rlassay.training.rl import run_rl

    with follow(study, layout, settings, policy.folder):
        run_rl(study, layout, policy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))
