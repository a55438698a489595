"""Let a policy answer an evaluation set, sampled and greedily."""

import argparse

from rlassay.cli.common import add_stage_arguments, check_fingerprint, chosen_policy, known, load, main
from rlassay.config.fingerprints import evaluation_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, the policy and the evaluation set."""
    add_stage_arguments(parser)
    parser.add_argument("--policy", required=True, help="runs/<arm>/seed<k>, sft/<id>[/seed<k>] or models/<id>")
    parser.add_argument("--set", required=True, help="one of the study's evaluation sets")


def run(args: argparse.Namespace) -> int:
    """Write the completions, or go on after a kill; 0. A StudyError passes through."""
    study, layout, _ = load(args)
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    check_fingerprint(args, evaluation_id(study, policy.recipe))
    from rlassay.evaluation.generate import run_generate
    from rlassay.training.state import require_gpus

    require_gpus(study.gpus)
    run_generate(study, layout, policy, split)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(__doc__, add_arguments, run))
