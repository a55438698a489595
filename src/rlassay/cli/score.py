"""Score the completions of a policy with the rewards of the study's arms."""

import argparse

from rlassay.cli.common import add_study_arguments, chosen_policy, known, load, main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, the policy and the evaluation set."""
    add_study_arguments(parser)
    parser.add_argument("--policy", required=True, help="runs/<arm>/seed<k>, sft/<id>[/seed<k>] or models/<id>")
    parser.add_argument("--set", required=True, help="one of the study's evaluation sets")


def run(args: argparse.Namespace) -> int:
    """Write the scores; 0. A StudyError passes through."""
    study, layout, _ = load(args)
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    from rlassay.evaluation.score import run_score

    run_score(study, layout, policy, split)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))
