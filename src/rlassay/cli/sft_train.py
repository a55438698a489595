"""Train a warm start on the demonstrations of the `sft` split."""

import argparse

from rlassay.cli.common import add_stage_arguments, check_fingerprint, chosen_policy, load, main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments and the warm start."""
    add_stage_arguments(parser)
    parser.add_argument("--policy", required=True, help="warm start to train: sft/<id> or sft/<id>/seed<k>")


def run(args: argparse.Namespace) -> int:
    """Train, or go on after a kill; 0. A StudyError passes through."""
    study, layout, settings = load(args)
    policy = chosen_policy(study, args.policy, stage="sft")
    check_fingerprint(args, policy.fingerprint)
    from rlassay.tracking import follow
    from rlassay.training.sft import run_sft

    with follow(study, layout, settings, policy.folder):
        run_sft(study, layout, policy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))
