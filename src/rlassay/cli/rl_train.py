"""Train one arm with one seed by reinforcement learning, from its warm start."""

import argparse

from rlassay.cli.common import add_stage_arguments, check_fingerprint, chosen_policy, load, main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments and the run."""
    add_stage_arguments(parser)
    parser.add_argument("--policy", required=True, help="run to train: runs/<arm>/seed<k>")


def run(args: argparse.Namespace) -> int:
    """Train, or go on after a kill; 0. A StudyError passes through."""
    study, layout, settings = load(args)
    policy = chosen_policy(study, args.policy, stage="rl")
    check_fingerprint(args, policy.fingerprint)
    from rlassay.tracking import follow
    from rlassay.training.rl import run_rl

    with follow(study, layout, settings, policy.folder):
        run_rl(study, layout, policy, settings.diagnostics)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))
