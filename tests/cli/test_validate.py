"""`rlassay validate`, run as users run it."""

from pathlib import Path

import pytest

from rlassay.cli.main import main
from tests.config.studies import content, write


def test_a_sound_study_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--study", "digits", "--scale", "tiny"]) == 0
    expected = "digits-tiny: sound; 4 arms x 2 seeds = 8 runs, baseline base\n"
    assert capsys.readouterr().out == expected


def test_problems_go_to_stderr_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(seeds=["1"], rl__max_steps=0))
    assert main(["validate", "--study", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: {path}: 2 problems\n"
        "  - rl.max_steps: got the number 0, expected a number of at least 1\n"
        "  - seeds.0: got the text '1', expected a whole number; write seeds: [1]\n"
    )
