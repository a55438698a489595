"""The `rlassay` command and the module of every rule: help is quick and loads nothing heavy, mistakes are readable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlassay.cli
from rlassay.cli.main import COMMANDS, main

MODULES = sorted(path.stem for path in Path(rlassay.cli.__file__).parent.glob("[a-z]*.py") if path.stem != "common")
HEAVY = {"torch", "transformers", "trl", "mlflow", "datasets", "pandas", "matplotlib", "sklearn"}
AS_USERS_RUN_IT = """
import runpy, sys
sys.argv = [{module!r}, *{arguments!r}]
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0, ended.code
print(sorted({heavy!r} & set(sys.modules)))
"""


def assert_quick_and_light(module: str, *arguments: str) -> str:
    """Run a module in a new process: under a second, without heavy libraries; returns what it printed.

    Processor time, since other tests share the machine; importing is all that happens, so that alone it is wall time.
    """
    code = AS_USERS_RUN_IT.format(module=module, arguments=arguments, heavy=HEAVY)
    before = os.times()
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    after = os.times()
    assert printed.stdout.endswith("\n[]\n")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0
    return printed.stdout


@pytest.mark.parametrize("module", [module for module in MODULES if module != "main"])
def test_the_help_of_every_module_is_quick_and_loads_nothing_heavy(module: str):
    assert "--study" in assert_quick_and_light(f"rlassay.cli.{module}", "--help")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_the_help_of_the_command_is_quick_and_loads_nothing_heavy(arguments: list[str]):
    assert "usage: rlassay" in assert_quick_and_light("rlassay.cli.main", *arguments)


def test_every_command_has_its_module():
    assert {name.replace("-", "_") for name in COMMANDS} <= set(MODULES)


@pytest.mark.parametrize("arguments", [[], ["validat"], ["validate", "--stdy", "x"]])
def test_a_wrong_command_line_ends_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlassay" in capsys.readouterr().err


def test_a_missing_settings_file_is_a_readable_error(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--config", "gone.yaml"]) == 2
    assert capsys.readouterr().err == "error: 1 problem\n  - gone.yaml: No such file or directory\n"
