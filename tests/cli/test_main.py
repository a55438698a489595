"""The `rlassay` command: it knows its commands, and mistakes are readable. (Help is tested in tests/house.)"""

import importlib
import tomllib
from pathlib import Path

import pytest

from rlassay.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_with_arguments_and_work(name: str):
    module = importlib.import_module(f"rlassay.cli.{name.replace('-', '_')}")
    assert callable(module.run)
    assert callable(module.add_arguments)


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"rlassay {project['version']}\n"


@pytest.mark.parametrize("arguments", [[], ["validat"], ["validate", "--stdy", "x"]])
def test_a_wrong_command_line_ends_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: rlassay" in capsys.readouterr().err


def test_a_missing_settings_file_is_a_readable_error(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--config", "gone.yaml"]) == 2
    assert capsys.readouterr().err == "error: 1 problem\n  - gone.yaml: No such file or directory\n"
