"""`--help` answers before anything heavy is imported; benchmarks/help_time.py measures how fast."""

import subprocess
import sys

import pytest

from rlassay.cli.main import COMMANDS
from rlassay.cli.stages import STAGES

HEAVY = {"torch", "trl", "transformers", "peft", "datasets", "mlflow", "matplotlib", "scipy", "sklearn", "pandas"}
PROGRAM = """
import runpy, sys
sys.argv = [{start!r}, *{arguments!r}]
try:
    {call}
except SystemExit as end:
    assert end.code == 0, end.code
print("LOADED", *sys.modules)
"""


def help_of(start: str, call: str, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints for `--help`, and the packages that it had loaded then."""
    program = PROGRAM.format(start=start, call=call, arguments=[*arguments, "--help"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    printed, loaded = done.stdout.split("LOADED")
    return printed, {name.split(".")[0] for name in loaded.split()}


@pytest.mark.parametrize("stage", [(), *((name,) for name in STAGES)], ids="".join)
def test_the_help_of_a_stage_loads_nothing_heavy(stage: tuple[str, ...]):
    printed, loaded = help_of("stages", "runpy.run_module('rlassay.cli.stages', run_name='__main__')", *stage)

    assert printed.startswith("usage: python -m rlassay.cli.stages")
    assert HEAVY & loaded == set()


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids="".join)
def test_the_help_of_a_command_loads_nothing_heavy(command: tuple[str, ...]):
    printed, loaded = help_of("rlassay", "from rlassay.cli.main import main; sys.exit(main())", *command)

    assert printed.startswith("usage: rlassay")
    assert HEAVY & loaded == set()
