import subprocess
import sys
import time

import pytest

from rlassay.cli import prepare_data
from rlassay.cli.common import main
from rlassay.config import load_study
from rlassay.config.fingerprints import data_id

TINY = ["--study", "digits", "--scale", "tiny"]


def call(*arguments):
    return main(prepare_data.__doc__, prepare_data.add_arguments, prepare_data.run, arguments)


def test_it_prepares_the_study_and_says_what_it_wrote(tmp_path, capsys):
    assert call(*TINY, "--results", str(tmp_path), "--fingerprint", data_id(load_study("digits", "tiny"))) == 0
    data = tmp_path / "digits-tiny" / "data"
    assert capsys.readouterr().out.splitlines() == [
        f"{data}/sft.jsonl: 256 rows",
        f"{data}/train.jsonl: 64 rows",
        f"{data}/test.jsonl: 24 rows",
    ]
    assert (data / "data.json").is_file()


def test_a_changed_study_is_refused_before_anything_is_written(tmp_path, capsys):
    assert call(*TINY, "--results", str(tmp_path), "--fingerprint", "0" * 8) == 2
    assert "the study changed after this job was planned" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_a_readable_error(tmp_path, capsys):
    assert call("--study", "digts", "--results", str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_is_quick_and_needs_no_numpy():
    start = time.perf_counter()
    code = "import sys, rlassay.cli.prepare_data as p\nfrom rlassay.cli.common import main\n"
    code += "try:\n    main(p.__doc__, p.add_arguments, p.run, ['--help'])\n"
    code += "finally:\n    print('numpy' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 60  # how fast is a benchmark's; this catches a hang
    assert "Write a study's prompts" in done.stdout
    assert done.stdout.endswith("False False\n")


def test_the_module_runs_by_hand(tmp_path):
    command = [
        sys.executable,
        "-m",
        "rlassay.cli.prepare_data",
        *TINY,
        "--results",
        str(tmp_path),
        "--fingerprint",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "now has the fingerprint" in done.stderr


@pytest.fixture(autouse=True)
def _from_the_project_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
