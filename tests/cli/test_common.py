"""Code that the commands share: loading the study, and errors for mistakes of the user's."""

import argparse
from pathlib import Path

import pytest

from rlassay.cli import common
from rlassay.config import StudyError
from rlassay.rewards.outcomes import RewardError
from tests.config.studies import content, write


def arguments(**given: object) -> argparse.Namespace:
    """Parsed study arguments."""
    plain = dict.fromkeys(("study", "scale", "engine", "results", "fingerprint"))
    return argparse.Namespace(**{**plain, "config": Path("config/config.yaml"), **given})


def test_the_command_line_goes_before_the_settings_file(tmp_path: Path):
    study = write(tmp_path / "study.yaml", content(name="mine"))
    config = write(tmp_path / "config.yaml", {"study": str(study), "scale": "tiny", "results": "here"})
    loaded, layout, settings = common.load(arguments(config=config))
    assert (loaded.id, layout.root, settings.scale) == ("mine-tiny", Path("here/mine-tiny"), "tiny")
    loaded, layout, _ = common.load(arguments(config=config, study="digits", scale="null", results="there"))
    assert (loaded.id, layout.root) == ("digits", Path("there/digits"))


def test_a_job_of_another_study_refuses_to_run():
    common.check_fingerprint(arguments(), "12345678")
    common.check_fingerprint(arguments(fingerprint="12345678"), "12345678")
    with pytest.raises(StudyError, match="the study changed after this job was planned: it now has the fingerprint 12"):
        common.check_fingerprint(arguments(fingerprint="87654321"), "12345678")


def test_known_names_the_nearest():
    assert common.known("--policy", "a", ["a", "b"]) == "a"
    with pytest.raises(StudyError, match="--arm: got 'bse', expected one of base, other; did you mean 'base'"):
        common.known("--arm", "bse", ["base", "other"])


def test_only_study_errors_are_taken_for_mistakes_of_the_user():
    def fail(_: argparse.Namespace) -> int:
        raise ValueError("a defect of the program")

    with pytest.raises(ValueError, match="a defect"):
        common.run_parsed(fail, arguments())


def test_a_reward_that_cannot_be_worked_with_is_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]):
    def fail(_: argparse.Namespace) -> int:
        raise RewardError("reward custom: got 1 values for 4 completions")

    assert common.run_parsed(fail, arguments()) == 2
    assert capsys.readouterr().err == "error: reward custom: got 1 values for 4 completions\n"
