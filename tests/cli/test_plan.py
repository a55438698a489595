"""`rlassay plan`: the tables a user reads, and the warning about a disk that is too small."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlassay.cli.main import main
from rlassay.cli.stages import main as stage
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
    assert "Each training and generation job: 1 process with 1 CPU thread" in printed
    assert "WARNING" not in printed
    assert not (tmp_path / "not").exists()


def test_processes_and_their_gpus_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for edits, shown in (
        ({"processes": 2}, "2 processes with 1 CPU thread each"),
        ({"gpus": 4}, "4 processes with a GPU"),
        ({"processes": 2, "nodes": 2}, "4 processes with 1 CPU thread each, on 2 machines"),
    ):
        path = write(tmp_path / "study.yaml", content(rl__per_device_train_batch_size=8, **edits))
        assert main(["plan", "--study", str(path)]) == 0
        printed = capsys.readouterr().out
        assert f"Each training and generation job: {shown}" in printed
        completions = 60 * 8 * (edits.get("processes") or edits["gpus"]) * edits.get("nodes", 1)
        assert cells(printed, "base")[-1] == f"{completions:,}"


def test_how_processes_share_the_policy_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(gpus=2, strategy="fsdp2", cpu_offload=True))
    assert main(["plan", "--study", str(path)]) == 0
    assert "2 processes with a GPU each, by fsdp2 with CPU offload" in capsys.readouterr().out


def test_one_process_answers_with_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    edits = {"gpus": 4, "evaluation__engine": {"kind": "vllm"}}
    path = write(tmp_path / "study.yaml", content(rl__per_device_train_batch_size=8, **edits))
    assert main(["plan", "--study", str(path)]) == 0
    shown = "Each training job: 4 processes with a GPU each; each generation job: 1 process with a GPU"
    assert shown in capsys.readouterr().out


def test_a_process_beside_each_run_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    edits = {"evaluation__every": 10, "evaluation__while_training": True}
    path = write(tmp_path / "study.yaml", content(**edits))
    assert main(["plan", "--study", str(path)]) == 0
    shown = "1 CPU thread; beside each RL run a process with 1 CPU thread evaluates its held-out curve"
    assert shown in capsys.readouterr().out


def test_the_most_of_seeds_in_rounds_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(seeds={"start": 3, "max": 5}))
    assert main(["plan", "--study", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "seeds in rounds, looks at 3, 4, 5 seeds; all numbers below are for the last" in printed
    assert cells(printed, "base")[2] == "5"


def test_a_small_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    assert main(["plan"]) == 0
    assert "WARNING: the disk is too small for this study" in capsys.readouterr().out


def test_sizes_that_the_config_does_not_tell_are_said_to_be_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(model={"kind": "hub", "name": "gpt2"}, title="[bold]x[/]"))
    assert main(["plan", "--study", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("[bold]x[/]\n")
    assert "and weights of unknown size" in printed
    assert cells(printed, "rl_train")[-1] == "-"


def with_leaks(folder: Path) -> str:
    """A study whose three training rows repeat each other and a test row."""
    rows = folder / "rows"
    rows.mkdir()
    questions = {"train": ["2 + 3?", "2 + 3?", "4 + 5?"], "test": ["4 + 5?"]}
    for split, asked in questions.items():
        lines = [json.dumps({"question": each, "answer": "5"}) for each in asked]
        (rows / f"{split}.jsonl").write_text("\n".join(lines))
    data = {"kind": "jsonl", "folder": str(rows), "splits": {"train": None, "test": None}, "max_rejected": 0.7}
    return str(write(folder / "study.yaml", content(data=data, sft=None)))


def rows_of(printed: str) -> list[str]:
    """The lines about rows."""
    lines = printed.splitlines()
    return lines[next(place for place, line in enumerate(lines) if line.startswith("Rows: ")) :]


def test_it_says_which_rows_the_rules_will_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--study", with_leaks(tmp_path), "--results", str(tmp_path / "results")]
    assert main(["plan", *arguments]) == 0
    said = rows_of(capsys.readouterr().out)
    assert said[0] == "Rows: data.duplicates is near, data.leaks is near, at most 70% of the records may be rejected"
    assert said[1] == "train: 1 of 3 rows kept"
    assert [line.split(":")[0] for line in said[2:]] == ["  1 rejected", "  1 rejected", "test"]
    assert not (tmp_path / "results").exists()
    # Afterwards it says the same of the rows on disk, which it does not read again.
    assert stage(["prepare_data", *arguments]) == 0
    capsys.readouterr()
    (tmp_path / "results/digits/data/train.jsonl").write_text("")
    assert main(["plan", *arguments]) == 0
    assert rows_of(capsys.readouterr().out) == said


def test_a_share_above_the_declared_one_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = Path(with_leaks(tmp_path))
    path.write_text(path.read_text().replace("max_rejected: 0.7", "max_rejected: 0.5"))
    assert main(["plan", "--study", str(path), "--results", str(tmp_path / "results")]) == 0
    warning = rows_of(capsys.readouterr().out)[1]
    assert warning.startswith("WARNING: data: 2 of 3 records of the split 'train' were rejected")


def test_generated_and_large_data_are_not_read(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--study", "digits"]) == 0
    assert "how many are kept is known when the data stage has read them" in capsys.readouterr().out
