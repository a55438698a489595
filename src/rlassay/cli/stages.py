"""The seven stages of a study as commands, one for each rule: `python -m rlassay.cli.stages rl_train --policy ...`"""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlassay.cli.common import add_study_arguments, check_fingerprint, chosen_policy, known, load, run_parsed
from rlassay.cli.failures import noted
from rlassay.config import Settings, Study
from rlassay.config.fingerprints import data_id, evaluation_id
from rlassay.layout import Layout

ANY_POLICY = "runs/<arm>/seed<k>, sft/<id>[/seed<k>] or models/<id>"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a stage."""

    args: argparse.Namespace
    """Its arguments."""
    study: Study
    """The study."""
    layout: Layout
    """Where its files lie."""
    settings: Settings
    """The settings."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its command line, its work, and the module whose code its results depend on."""

    about: str
    """The help text."""
    module: str
    """Module that does the work; a change of its code, or of code that it imports, makes the stage run again."""
    run: Callable[["Job"], None]
    """Does the work; imports `module` itself, so that `--help` loads nothing heavy."""
    policy: str | None = None
    """Help of `--policy`; None for a stage of the whole study."""
    takes_set: bool = False
    """Whether it needs `--set`, an evaluation set."""
    takes_fingerprint: bool = False
    """Whether it accepts `--fingerprint`, that of the job that was planned."""
    takes_partial: bool = False
    """Whether it accepts `--partial`."""
    takes_look: bool = False
    """Whether it needs `--look`."""


def prepare_data(job: Job) -> None:
    """Prepare the data and print how many rows each split kept."""
    args, study, layout = job.args, job.study, job.layout
    check_fingerprint(args, data_id(study))
    from rlassay.data import run_prepare_data

    for split, facts in run_prepare_data(study, layout).items():
        print(*facts.kept(split), sep="\n")


def sft_train(job: Job) -> None:
    """Train a warm start, or resume one that was killed."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy, stage="sft")
    check_fingerprint(args, policy.fingerprint)
    from rlassay.tracking import follow
    from rlassay.training.sft import run_sft

    with follow(study, layout, job.settings, policy.folder):
        run_sft(study, layout, policy)


def rl_train(job: Job) -> None:
    """Train one arm with one seed, or resume a run that was killed."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy, stage="rl")
    check_fingerprint(args, policy.fingerprint)
    from rlassay.tracking import follow
    from rlassay.training.rl import run_rl

    with follow(study, layout, job.settings, policy.folder):
        run_rl(study, layout, policy, job.settings.diagnostics)


def generate(job: Job) -> None:
    """Write a policy's completions, or resume a job that was killed."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    check_fingerprint(args, evaluation_id(study, policy.recipe))
    from rlassay.evaluation.generate import run_generate
    from rlassay.training.process import require_gpus

    require_gpus(study.gpus)
    run_generate(study, layout, policy, split)


def score(job: Job) -> None:
    """Write the scores of a policy's completions."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    from rlassay.evaluation.score import run_score

    run_score(study, layout, policy, split)


def decide(job: Job) -> None:
    """Decide which arms get more seeds."""
    from rlassay.report.decide import run_decide

    run_decide(job.study, job.layout, job.settings, job.args.look)


def ablation_report(job: Job) -> None:
    """Write the report and print its verdicts."""
    args, study, layout = job.args, job.study, job.layout
    from rlassay.report import run_report
    from rlassay.tracking import follow

    with follow(study, layout, job.settings):
        run_report(study, layout, job.settings, partial=args.partial)


STAGES = {
    "prepare_data": Stage(
        about="write a study's prompts, gold answers, demonstrations and images",
        module="rlassay.data.prepare",
        run=prepare_data,
        takes_fingerprint=True,
    ),
    "sft_train": Stage(
        about="train a warm start on the demonstrations of the `sft` split",
        module="rlassay.training.sft",
        run=sft_train,
        policy="warm start to train: sft/<id> or sft/<id>/seed<k>",
        takes_fingerprint=True,
    ),
    "rl_train": Stage(
        about="train one arm with one seed by reinforcement learning",
        module="rlassay.training.rl",
        run=rl_train,
        policy="run to train: runs/<arm>/seed<k>",
        takes_fingerprint=True,
    ),
    "generate": Stage(
        about="let a policy answer an evaluation set, sampled and greedily",
        module="rlassay.evaluation.generate",
        run=generate,
        policy=ANY_POLICY,
        takes_set=True,
        takes_fingerprint=True,
    ),
    "score": Stage(
        about="score the completions of a policy with the rewards of the study's arms",
        module="rlassay.evaluation.score",
        run=score,
        policy=ANY_POLICY,
        takes_set=True,
    ),
    "decide": Stage(
        about="compare the arms after a round of sequential seeds, and name those that get more",
        module="rlassay.report.decide",
        run=decide,
        takes_look=True,
    ),
    "ablation_report": Stage(
        about="write a study's report: verdicts, tables, figures and page",
        module="rlassay.report.run",
        run=ablation_report,
        takes_partial=True,
    ),
}


def shell_prefix(settings: Settings) -> str:
    """Prefix of each shell line of a rule: it makes the study's arguments the shell's own, "$@".

    Braces in names are doubled, since Snakemake formats the line.
    """
    where = ["--study", settings.study, "--scale", settings.scale or "null", "--results", settings.results]
    return f"set -euo pipefail; set -- {shlex.join(where)}; ".replace("{", "{{").replace("}", "}}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code: 0, or 2 after a mistake of the user's was printed."""
    parser = argparse.ArgumentParser(prog="python -m rlassay.cli.stages", description="run one stage of a study")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, stage in STAGES.items():
        _add_arguments(commands.add_parser(name, help=stage.about, description=stage.about), stage)
    args = parser.parse_args(argv)
    return run_parsed(_run, args)


def _add_arguments(parser: argparse.ArgumentParser, stage: Stage) -> None:
    add_study_arguments(parser)
    if stage.policy is not None:
        parser.add_argument("--policy", required=True, help=stage.policy)
    if stage.takes_set:
        parser.add_argument("--set", required=True, help="one of the study's evaluation sets")
    if stage.takes_fingerprint:
        parser.add_argument("--fingerprint", metavar="HEX", help="refuse to run unless the job still has this one")
    if stage.takes_look:
        parser.add_argument("--look", type=int, required=True, help="number of the look, from 1")
    if stage.takes_partial:
        parser.add_argument(
            "--partial", action="store_true", help="report on the finished runs and list the missing ones"
        )


def _run(args: argparse.Namespace) -> int:
    study, layout, settings = load(args)
    stage = STAGES[args.stage]
    with noted(layout, args.stage, args.policy if stage.policy else None, args.set if stage.takes_set else None):
        stage.run(Job(args=args, study=study, layout=layout, settings=settings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
