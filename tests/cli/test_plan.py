"""`rlassay plan`: the tables a user reads, and the warning about a disk that is too small."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlassay.cli.main import main
from tests.config.studies import content, write


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")


def cells(printed: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    row = next(line for line in printed.splitlines() if line.startswith(f"│ {first} "))
    return [cell.strip() for cell in row.strip("│").split("│")]


def test_arms_and_stages_are_listed_with_their_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--study", "digits", "--scale", "tiny", "--results", str(tmp_path / "not/yet")]) == 0
    printed = capsys.readouterr().out
    assert f"digits-tiny, seeds 1, 2, to {tmp_path}/not/yet/digits-tiny/" in printed
    assert cells(printed, "base") == ["base", "the baseline", "2", "4", "64"]
    assert cells(printed, "dr_grpo") == ["dr_grpo", "rl.loss_type, rl.scale_rewards", "2", "4", "64"]
    # 8 runs x 4 steps x 16 completions of at most 24 tokens; 10 policies x 24 prompts x 5 completions.
    assert cells(printed, "rl_train")[:5] == ["rl_train", "8", "32", "512", "12,288"]
    assert cells(printed, "generate")[:5] == ["generate", "10", "-", "1,200", "28,800"]
    assert "WARNING" not in printed
    assert not (tmp_path / "not").exists()


def test_a_small_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    assert main(["plan"]) == 0
    assert "WARNING: the disk is too small for this study" in capsys.readouterr().out


def test_sizes_that_the_config_does_not_tell_are_said_to_be_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(model={"kind": "hub", "name": "gpt2"}, title="[bold]x[/]"))
    assert main(["plan", "--study", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("[bold]x[/]\n")
    assert "and weights of a size that the config does not tell" in printed
    assert cells(printed, "rl_train")[-1] == "-"
