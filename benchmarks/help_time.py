"""How long `--help` takes, for every command. The slowest is printed last; the aim is under 1 s."""

import subprocess
import sys
import time
from pathlib import Path

from rlassay.cli.main import COMMANDS
from rlassay.cli.stages import STAGES

REPEATS = 3


def seconds(command: list[str]) -> float:
    """Best wall time of a few runs, in seconds; the first ones may still read from a cold disk."""
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Time every command and print the slowest last."""
    python = Path(sys.executable)
    commands = {f"rlassay {name}": [str(python.with_name("rlassay")), name] for name in COMMANDS}
    commands |= {f"stage {name}": [str(python), "-m", "rlassay.cli.stages", name] for name in STAGES}
    times = {name: seconds(command) for name, command in commands.items()}
    for name, value in times.items():
        print(f"{name:40} {value:.2f} s")
    slowest = max(times, key=times.__getitem__)
    print(f"slowest --help: {times[slowest]:.2f} s ({slowest})")


if __name__ == "__main__":
    main()
