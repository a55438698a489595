"""Shared by all commands: the study's arguments, loading the study, and readable errors."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rlassay.config import Settings, Study, StudyError, load_settings, load_study
from rlassay.config.inputs import snapshot
from rlassay.config.policies import Policy, policies
from rlassay.layout import Layout
from rlassay.names import unknown
from rlassay.ranks import is_launched, note_refusal
from rlassay.rewards.outcomes import RewardError
from rlassay.training.process import RefusedError

USER_ERROR = 2
"""Exit code for a mistake in a study, a settings file or an argument."""


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--study`, `--scale`, `--engine`, `--results` and `--config`; an argument overrides the settings file."""
    parser.add_argument("--study", help="a file's name in config/studies/ or a path [config.yaml: study]")
    parser.add_argument("--scale", help="a file's name in config/scales/ or a path; null for none [config.yaml: scale]")
    parser.add_argument("--engine", help="vllm or transformers, in place of the study's own engines; null for these")
    parser.add_argument("--results", help="folder that receives everything [config.yaml: results]")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="settings file [%(default)s]")


def load(args: argparse.Namespace) -> tuple[Study, Layout, Settings]:
    """Load the study that the arguments name; StudyError lists everything that is wrong with it."""
    settings = load_settings(args.config, study=args.study, scale=args.scale, engine=args.engine, results=args.results)
    study = load_study(settings.study, settings.scale, settings.engine)
    return study, Layout(root=Path(settings.results) / study.id), settings


def check_fingerprint(args: argparse.Namespace, fingerprint: str) -> None:
    """Raise StudyError when the study on disk has changed since the job was planned."""
    if args.fingerprint is not None and args.fingerprint != fingerprint:
        raise StudyError(
            [
                "the study changed after this job was planned: "
                f"it now has the fingerprint {fingerprint}, planned was {args.fingerprint}; run the command again"
            ]
        )


def known(what: str, given: str, names: Iterable[str]) -> str:
    """Return `given` if it is among `names`; else raise StudyError with the names and the nearest one."""
    names = list(names)
    if given not in names:
        raise StudyError([unknown(what, given, names)])
    return given


def chosen_policy(study: Study, folder: str, stage: str | None = None) -> Policy:
    """The policy that `--policy` names, of one stage if given; StudyError lists the known ones."""
    found = {name: policy for name, policy in policies(study).items() if stage in (None, policy.stage)}
    return found[known("--policy", folder, found)]


def run_parsed(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit code of `run`; 2 after printing a StudyError, a RefusedError or a RewardError without traceback.

    In one of several processes the launcher prints it, once and as the last line of the log.
    """
    try:
        with snapshot():
            return run(args)
    except (StudyError, RefusedError, RewardError) as error:
        if is_launched():
            note_refusal(str(error))
        else:
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
