"""What the commands share: their arguments, loading what they name, and errors that a user can read."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rlassay.config import Settings, Study, StudyError, load_settings, load_study
from rlassay.config.explain import nearest, one_of
from rlassay.config.policies import Policy, policies
from rlassay.layout import Layout
from rlassay.rewards.outcomes import RewardError
from rlassay.training.state import RefusedError

USER_ERROR = 2
"""Exit code for a mistake in a study, a settings file or an argument."""


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """`--study`, `--scale`, `--results` and `--config`; a given one goes before the settings file."""
    parser.add_argument("--study", help="a file's name in config/studies/ or a path [config.yaml: study]")
    parser.add_argument("--scale", help="a file's name in config/scales/ or a path; null for none [config.yaml: scale]")
    parser.add_argument("--results", help="folder that receives everything [config.yaml: results]")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="settings file [%(default)s]")


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's arguments, and the `--fingerprint` of the job that was planned."""
    add_study_arguments(parser)
    parser.add_argument("--fingerprint", metavar="HEX", help="refuse to run unless the job still has this fingerprint")


def load(args: argparse.Namespace) -> tuple[Study, Layout, Settings]:
    """What the study arguments name; raises StudyError with everything that is wrong with it."""
    settings = load_settings(args.config, study=args.study, scale=args.scale, results=args.results)
    study = load_study(settings.study, settings.scale)
    return study, Layout(root=Path(settings.results) / study.id), settings


def check_fingerprint(args: argparse.Namespace, fingerprint: str) -> None:
    """Raises StudyError when the study on disk is no longer the one that the job was planned for."""
    if args.fingerprint is not None and args.fingerprint != fingerprint:
        raise StudyError(
            [
                "the study changed after this job was planned: "
                f"it now has the fingerprint {fingerprint}, planned was {args.fingerprint}; run the command again"
            ]
        )


def known(what: str, given: str, names: Iterable[str]) -> str:
    """`given` if it is among `names`; else StudyError with the names and the nearest, as in `--arm: got 'bse', ...`."""
    names = list(names)
    if given not in names:
        raise StudyError([f"{what}: got {given!r}, expected {one_of(names)}{nearest(given, names)}"])
    return given


def chosen_policy(study: Study, folder: str, stage: str | None = None) -> Policy:
    """The study's policy that `--policy` names, of one stage if given; StudyError with the known ones otherwise."""
    found = {name: policy for name, policy in policies(study).items() if stage in (None, policy.stage)}
    return found[known("--policy", folder, found)]


def main(
    about: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run, and return the exit code; a StudyError is printed as it is, without a traceback.

    Args:
        about: docstring of the command's module; its first line is the help.
        add_arguments: adds the command's arguments to a parser.
        run: does the work with the parsed arguments and returns the exit code.
        argv: the arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=(about or "").split("\n", 1)[0])
    add_arguments(parser)
    return run_parsed(run, parser.parse_args(argv))


def run_parsed(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit code of `run`; 2 after printing a StudyError, a RefusedError or a RewardError."""
    try:
        return run(args)
    except (StudyError, RefusedError, RewardError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
