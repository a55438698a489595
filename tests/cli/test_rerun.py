"""`rlassay rerun`: the right Snakemake command, printed and then run in its place."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlassay.cli import rerun
from rlassay.cli.main import main
from rlassay.config import load_study
from rlassay.config.fingerprints import sft_policy

TINY = ["--study", "digits", "--scale", "tiny"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have replaced this process."""
    found: list[list[str]] = []
    monkeypatch.setattr(rerun.os, "execv", lambda path, command: found.append(command) or sys.exit(0))
    return found


def forced(started: list[list[str]], *arguments: str) -> list[str]:
    """The outputs that Snakemake was asked to make again."""
    with pytest.raises(SystemExit):
        main(["rerun", *TINY, *arguments])
    command = started[-1]
    return command[command.index("--forcerun") + 1 :]


def test_the_command_is_printed_and_then_run(started: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rerun", *TINY, "base", "--seed", "2", "--cores", "3", "--results", "my results"])
    command = ["snakemake", "ablation_report", "--cores", "3"]
    command += ["--config", "study=digits", "scale=tiny", "results=my results"]
    command += ["--forcerun", "my results/digits-tiny/runs/base/seed2/train.json"]
    assert started == [[sys.executable, "-m", *command]]
    assert capsys.readouterr().out == shlex.join(command) + "\n"


def test_each_stage_begins_at_its_own_output(started: list[list[str]]) -> None:
    study = load_study("digits", "tiny")
    folder = "results/digits-tiny"
    assert forced(started, "base") == [f"{folder}/runs/base/seed{seed}/train.json" for seed in (1, 2)]
    start = sft_policy(study, study.arms["base"].recipe, 1)
    assert forced(started, "base", "--stage", "sft") == [f"{folder}/{start}/sft.json"]  # shared by both seeds
    answers = [f"{folder}/runs/base/seed1/eval/test.completions.jsonl"]
    assert forced(started, "base", "--stage", "evaluation", "--seed", "1") == answers
    assert forced(started, "base", "--seed", "1", "--dry-run")[-1] == "--dry-run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bse"], "arm: got 'bse', expected one of base, accuracy_only, format_only, dr_grpo; did you mean 'base'?"),
        (["base", "--seed", "3"], "--seed: got '3', expected one of 1, 2"),
    ],
)
def test_what_the_study_does_not_have_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerun", *TINY, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_arm_without_a_warm_start_has_none_to_repeat(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("config/studies/digits.yaml").read_text().replace("name: digits", "name: bare")
    (tmp_path / "bare.yaml").write_text(
        text.replace("    from: base\n    label: Dr. GRPO", "    sft: null\n    label: Dr. GRPO")
    )
    study = str(tmp_path / "bare.yaml")
    assert main(["rerun", "--study", study, "dr_grpo", "--stage", "sft"]) == 2
    assert "dr_grpo" in capsys.readouterr().err
    assert started == []


def test_snakemake_takes_the_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rlassay.cli.main",
        "rerun",
        *TINY,
        "base",
        "--seed",
        "1",
        "--results",
        str(tmp_path),
    ]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    assert "Train runs/base/seed1" in dry.stdout + dry.stderr
