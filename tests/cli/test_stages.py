"""The commands of the stages, from arguments to files and readable errors. (Help is tested in tests/house.)"""

import gc
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from rlassay.cli import gpus
from rlassay.cli.stages import STAGES, main
from rlassay.config import load_study
from rlassay.config.fingerprints import data_id
from rlassay.job_times import job_seconds
from rlassay.layout import Layout
from tests.config.studies import content, write
from tests.evaluation.tiny import SMALL, layout_with_data, only, tiny_study

DIGITS = ["--study", "digits", "--scale", "tiny"]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """`--study` and `--results` of a tiny study whose data are there."""
    file = write(tmp_path / "digits.yaml", content(**SMALL))
    layout_with_data(tmp_path / "results/digits")
    return ["--study", str(file), "--results", str(tmp_path / "results")]


@pytest.fixture(autouse=True)
def _from_the_project_root(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    monkeypatch.chdir(request.config.rootpath)


def test_the_data_are_prepared_and_one_line_per_split_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fingerprint = data_id(load_study("digits", "tiny"))
    assert main(["prepare_data", *DIGITS, "--results", str(tmp_path), "--fingerprint", fingerprint]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sft: 256 of 256 rows kept",
        "train: 64 of 64 rows kept",
        "test: 24 of 24 rows kept",
    ]
    assert (tmp_path / "digits-tiny/data/data.json").is_file()


def test_a_changed_study_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["prepare_data", *DIGITS, "--results", str(tmp_path), "--fingerprint", "0" * 8]) == 2
    assert "the study changed after this job was planned" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_a_readable_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["prepare_data", "--study", "digts", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_warm_start_is_trained_answers_and_is_scored(arguments: list[str], tmp_path: Path):
    policy = only(tiny_study(), "sft").folder

    gc.unfreeze()
    assert main(["sft_train", *arguments, "--policy", policy]) == 0
    assert gc.isenabled()  # it rests while libraries are imported alone, and skips them afterwards
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    assert main(["generate", *arguments, "--policy", policy, "--set", "test"]) == 0
    assert main(["score", *arguments, "--policy", policy, "--set", "test"]) == 0

    assert (tmp_path / "results/digits" / policy / "eval/test.scores.parquet").exists()


def test_the_wait_for_a_gpu_is_recorded_until_a_job_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "locks")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    file = write(tmp_path / "digits.yaml", content(**SMALL | {"gpus": 1}))
    layout = Layout(root=tmp_path / "results/digits")
    policy = only(tiny_study(gpus=1), "sft").folder
    job = [
        "generate",
        "--study",
        str(file),
        "--results",
        str(tmp_path / "results"),
        "--policy",
        policy,
        "--set",
        "test",
    ]
    benchmark = layout.benchmark(policy, "generate-test")
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\n5.0\t0:00:05\n")
    with ThreadPoolExecutor(1) as other, FileLock(tmp_path / "locks/7.lock"):
        waits = other.submit(main, job)
        time.sleep(2)
    assert waits.result() == 2  # no GPU here
    found = job_seconds(benchmark)
    assert found is not None
    assert found <= 3
    assert main(job) == 2
    assert job_seconds(benchmark) == 5


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage.policy])
def test_an_unknown_policy_is_refused_with_the_known_ones(
    stage: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    options = ["--set", "test"] if STAGES[stage].takes_set else []

    assert main([stage, *arguments, "--policy", "sft/0", *options]) == 2
    assert "--policy: got 'sft/0', expected" in capsys.readouterr().err


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage.takes_set])
def test_an_unknown_set_is_refused(stage: str, arguments: list[str], capsys: pytest.CaptureFixture[str]):
    policy = only(tiny_study(), "model").folder

    assert main([stage, *arguments, "--policy", policy, "--set", "tset"]) == 2
    assert "--set: got 'tset', expected" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "kind"), [("sft_train", "sft"), ("rl_train", "rl"), ("generate", "model")])
def test_a_policy_that_changed_after_planning_is_refused(
    stage: str, kind: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    options = ["--set", "test"] if STAGES[stage].takes_set else []
    policy = only(tiny_study(), kind).folder

    assert main([stage, *arguments, "--policy", policy, *options, "--fingerprint", "0"]) == 2
    assert "the study changed after this job was planned" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["sft_train", "rl_train", "generate"])
def test_a_job_that_torchrun_starts_several_times_is_refused(
    stage: str, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    options = ["--set", "test"] if STAGES[stage].takes_set else []

    assert main([stage, *arguments, "--policy", "sft/0", *options]) == 2
    assert capsys.readouterr().err.startswith("error: something has started this job 3 times (WORLD_SIZE), such as")


def test_a_report_on_an_unfinished_study_is_an_error_with_the_command_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["ablation_report", *DIGITS, "--results", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "is missing; make it with: snakemake --cores all" in printed
    everything = f"snakemake --cores all ablation_report --config study=digits scale=tiny results={tmp_path}"
    assert f"make all with: {everything}" in printed


def test_a_partial_report_needs_the_data_at_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ablation_report", *DIGITS, "--results", str(tmp_path), "--partial"]) == 2
    assert "data.json is missing; make it with" in capsys.readouterr().err


def test_help_is_quick_and_needs_no_numpy():
    start = time.perf_counter()
    code = "import sys\nfrom rlassay.cli.stages import main\n"
    code += "try:\n    main(['prepare_data', '--help'])\n"
    code += "finally:\n    print('numpy' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 60  # benchmarks/help_time.py measures how fast; this catches a hang
    assert "write a study's prompts" in done.stdout
    assert done.stdout.endswith("False False\n")


def test_the_module_runs_by_hand(tmp_path: Path):
    command = [sys.executable, "-m", "rlassay.cli.stages", "prepare_data", *DIGITS, "--results", str(tmp_path)]
    done = subprocess.run([*command, "--fingerprint", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "now has the fingerprint" in done.stderr
