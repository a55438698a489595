"""The eight stages of a study as commands, one for each rule.

One of them is `python -m rlassay.cli.stages rl_train --policy ...`.
"""

import argparse
import gc
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from rlassay import ranks
from rlassay.cli.common import add_study_arguments, check_fingerprint, chosen_policy, known, load, run_parsed
from rlassay.cli.failures import note_once, noted
from rlassay.cli.gpus import handed_out, set_aside
from rlassay.config import Settings, Study
from rlassay.config.fingerprints import data_id, evaluation_id
from rlassay.evaluation.follower import judged_meanwhile
from rlassay.job_times import note_wait
from rlassay.layout import Layout
from rlassay.models.vllm_engine import set_environment
from rlassay.rewards import IN_THEIR_OWN_PROCESS
from rlassay.training.process import refuse_other_launchers

KEEP_LOG = (
    'keep_log() { touch "$1.all"; ln -f "$1.all" "$1" 2> /dev/null || true; '
    'echo "== $(date "+%F %T") on $(hostname)" >> "$1"; }; '
)
"""A shell function that keeps the lines of earlier attempts. Snakemake removes the log before it starts a job, and the
file lives on by its other name, `<log>.all`."""
ANY_POLICY = "runs/<arm>/seed<k>, sft/<id>[/seed<k>] or models/<id>"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a stage."""

    args: argparse.Namespace
    """Its arguments."""
    study: Study
    """The study."""
    layout: Layout
    """Paths of its files."""
    settings: Settings
    """The settings."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: command line, work, and the module whose code its results depend on."""

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
    """Whether it accepts `--fingerprint`, the fingerprint of the planned job."""
    in_processes: bool = False
    """Whether the study's processes share it."""
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
    with _importing():
        from rlassay.training.sft import run_sft

    with _tracked(job, policy.folder):
        run_sft(study, layout, policy, job.settings.tracking.report_to)


def rl_train(job: Job) -> None:
    """Train one arm with one seed, or resume a run that was killed."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy, stage="rl")
    check_fingerprint(args, policy.fingerprint)
    with _importing():
        from rlassay.training.rl import run_rl

    with _tracked(job, policy.folder):
        run_rl(study, layout, policy, job.settings.diagnostics, job.settings.tracking.report_to)


@contextmanager
def _importing() -> Generator[None]:
    """Pause garbage collection in the body, and exempt its remaining objects from later collections.

    The libraries of training make thousands of objects that stay: scanning them repeatedly takes a sixth of the time of
    their import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _tracked(job: Job, policy: str) -> AbstractContextManager[None]:
    """Feed MLflow while the body trains a policy; of several processes, one does."""
    from rlassay.tracking import follow

    return follow(job.study, job.layout, job.settings, policy) if ranks.is_main() else nullcontext()


def generate(job: Job) -> None:
    """Write a policy's completions, or resume a job that was killed."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    check_fingerprint(args, evaluation_id(study, policy.recipe))
    from rlassay.training.process import require_gpus

    with _importing():
        from rlassay.evaluation.generate import run_generate

    require_gpus(study.placed("generate").gpus)
    run_generate(study, layout, policy, split)


def score(job: Job) -> None:
    """Write the scores of a policy's completions."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy)
    split = known("--set", args.set, study.evaluation.sets)
    from rlassay.evaluation.score import run_score

    run_score(study, layout, policy, split)


def held_out_curve(job: Job) -> None:
    """Evaluate the weights that a run kept in the middle of its training."""
    args, study, layout = job.args, job.study, job.layout
    policy = chosen_policy(study, args.policy, stage="rl")
    check_fingerprint(args, evaluation_id(study, policy.recipe))
    from rlassay.evaluation.curve import run_curve
    from rlassay.training.process import require_gpus

    require_gpus(study.placed("held_out_curve").gpus)
    run_curve(study, layout, policy)


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
        in_processes=True,
    ),
    "rl_train": Stage(
        about="train one arm with one seed by reinforcement learning",
        module="rlassay.training.rl",
        run=rl_train,
        policy="run to train: runs/<arm>/seed<k>",
        takes_fingerprint=True,
        in_processes=True,
    ),
    "generate": Stage(
        about="let a policy answer an evaluation set, sampled and greedily",
        module="rlassay.evaluation.generate",
        run=generate,
        policy=ANY_POLICY,
        takes_set=True,
        takes_fingerprint=True,
        in_processes=True,
    ),
    "score": Stage(
        about="score the completions of a policy with the rewards of the study's arms",
        module="rlassay.evaluation.score",
        run=score,
        policy=ANY_POLICY,
        takes_set=True,
    ),
    "held_out_curve": Stage(
        about="evaluate the weights that a run kept in the middle of its training",
        module="rlassay.evaluation.curve",
        run=held_out_curve,
        policy="run to evaluate: runs/<arm>/seed<k>",
        takes_fingerprint=True,
        in_processes=True,
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
    """Prefix of each shell line of a rule.

    It sets "$@" to the study's arguments and defines `keep_log`. Braces in names are doubled, since Snakemake formats
    the line.
    """
    where = ["--study", settings.study, "--scale", settings.scale or "null", "--engine", settings.engine or "null"]
    where += ["--results", settings.results]
    return f"set -euo pipefail; set -- {shlex.join(where)}; {KEEP_LOG}".replace("{", "{{").replace("}", "}}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code. It is 0, or 2 after printing a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m rlassay.cli.stages", description="run one stage of a study")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, stage in STAGES.items():
        _add_arguments(commands.add_parser(name, help=stage.about, description=stage.about), stage)
    args = parser.parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    ranks.show_life()
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
    stage, placed = STAGES[args.stage], study.placed(args.stage)
    if stage.in_processes:
        refuse_other_launchers()
    began, held = time.monotonic(), _gpus(stage, placed)
    with handed_out(held, beside=_judging_gpus(stage, study)), _judged(args, study, layout, settings):
        if stage.takes_set and not ranks.is_launched():
            note_wait(layout.benchmark(args.policy, f"{args.stage}-{args.set}"), time.monotonic() - began)
        if stage.in_processes and study.ranks_of(args.stage) > 1 and not ranks.is_launched():
            from rlassay.cli.launch import launch

            job = _job(args)
            layout.failure(*job).unlink(missing_ok=True)
            return launch(study, args.argv, settings.resources, layout.root, partial(note_once, layout, *job))
        return _run_here(args, study, layout, settings)


def _gpus(stage: Stage, study: Study) -> int:
    """GPUs to lock here; 0 in a rank, whose launcher holds them."""
    if ranks.is_launched():
        return 0
    if stage.in_processes:
        return study.gpus + _judging_gpus(stage, study)
    reads_models = stage.run is score and bool(IN_THEIR_OWN_PROCESS & set(study.rewards))
    return min(1, study.gpus) if reads_models else 0


def _judging_gpus(stage: Stage, study: Study) -> int:
    """GPUs for the process that evaluates a run's held-out curve while it trains; part of `_gpus`."""
    return study.judging_gpus if stage.run is rl_train and not ranks.is_launched() else 0


@contextmanager
def _judged(args: argparse.Namespace, study: Study, layout: Layout, settings: Settings) -> Generator[None]:
    """Evaluate a run's held-out curve in a process beside the body that trains it.

    It does nothing if the study does not ask for it.
    """
    stage = STAGES[args.stage]
    if stage.run is not rl_train or ranks.is_launched() or not study.judging_processes:
        yield
        return
    policy = chosen_policy(study, args.policy, stage="rl").folder
    # Snakemake passes on the threads of both processes, and more threads would change the weights' last bits.
    names = [name for name in os.environ if name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS"))]
    os.environ.update(dict.fromkeys(names, str(settings.resources.threads)))
    with set_aside(study.judging_gpus) as environment, judged_meanwhile(study, layout, policy, environment):
        yield


def _run_here(args: argparse.Namespace, study: Study, layout: Layout, settings: Settings) -> int:
    stage = STAGES[args.stage]
    if stage.in_processes:
        # TRL would import MLflow, a second of CPU time; a process of its own feeds MLflow (`rlassay.tracking`).
        os.environ.setdefault("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    if study.uses_vllm and stage.in_processes:
        set_environment(on_cpu=study.gpus == 0)
    with noted(layout, *_job(args)):
        stage.run(Job(args=args, study=study, layout=layout, settings=settings))
    return 0


def _job(args: argparse.Namespace) -> tuple[str, str | None, str | None]:
    """Stage, policy and evaluation set of a job."""
    stage = STAGES[args.stage]
    return args.stage, args.policy if stage.policy else None, args.set if stage.takes_set else None


if __name__ == "__main__":
    raise SystemExit(main())
