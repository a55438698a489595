"""`--help` answers before anything heavy is imported; benchmarks/help_time.py measures how fast."""

import json
import subprocess
import sys
from functools import cache

import pytest

from rlassay.cli.main import COMMANDS
from rlassay.cli.stages import STAGES

HEAVY = {"torch", "trl", "transformers", "peft", "datasets", "mlflow", "matplotlib", "scipy", "sklearn", "pandas"}
PROGRAM = """
import io, json, sys
from contextlib import redirect_stdout
from rlassay.cli.{module} import main

found = {{}}
for name in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as printed:
        try:
            main([*name.split(), "--help"])
        except SystemExit as end:
            assert end.code == 0, end.code
    found[name] = printed.getvalue(), [each.split(".")[0] for each in sys.modules]
print(json.dumps(found))
"""


@cache
def help_of(module: str, *names: str) -> dict[str, tuple[str, list[str]]]:
    """Output of each command's `--help`, and the packages loaded by then, one command after the other."""
    command = [sys.executable, "-c", PROGRAM.format(module=module), json.dumps(names)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("stage", ["", *STAGES])
def test_the_help_of_a_stage_loads_nothing_heavy(stage: str):
    printed, loaded = help_of("stages", "", *STAGES)[stage]

    assert printed.startswith(f"usage: python -m rlassay.cli.stages {stage}".rstrip())
    assert HEAVY & set(loaded) == set()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_of_a_command_loads_nothing_heavy(command: str):
    printed, loaded = help_of("main", "", *COMMANDS)[command]

    assert printed.startswith(f"usage: rlassay {command}".rstrip())
    assert HEAVY & set(loaded) == set()
