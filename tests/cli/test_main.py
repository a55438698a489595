"""The `rlassay` command: help is quick and loads nothing heavy, mistakes are readable."""

import subprocess
import sys
import time

import pytest

from rlassay.cli.main import COMMANDS, main

HEAVY = {"torch", "transformers", "trl", "mlflow", "datasets", "pandas", "matplotlib", "sklearn"}
HELP = "import sys\nfrom rlassay.cli.main import main\ntry:\n    main({arguments})\nexcept SystemExit:\n    pass\n"


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_is_quick_and_loads_nothing_heavy(arguments: list[str]):
    code = HELP.format(arguments=arguments) + f"print(sorted({HEAVY} & set(sys.modules)))"
    seconds = []
    for _ in range(3):  # other tests share the machine: the quickest of three counts
        start = time.perf_counter()
        printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - start)
    assert "usage: " in printed.stdout
    assert printed.stdout.endswith("[]\n")
    assert min(seconds) < 1.0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_also_runs_as_a_module(name: str):
    command = [sys.executable, "-m", f"rlassay.cli.{name.replace('-', '_')}", "--help"]
    assert "--study" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("arguments", [[], ["validat"], ["validate", "--stdy", "x"]])
def test_a_wrong_command_line_ends_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlassay" in capsys.readouterr().err


def test_a_missing_settings_file_is_a_readable_error(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--config", "gone.yaml"]) == 2
    assert capsys.readouterr().err == "error: 1 problem\n  - gone.yaml: No such file or directory\n"
