"""How long a run takes that has nothing to do: python benchmarks/noop_rerun.py [--config study=... scale=...].

Needs a finished study. The figure is printed last; the aim is under 10 s.
"""

import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Time `snakemake ablation_report` on the finished study; stop if it is not finished."""
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [snakemake, "--cores", "all", "ablation_report", *sys.argv[1:]]
    ahead = subprocess.run([*command, "-n"], check=True, text=True, capture_output=True)
    if "Nothing to be done" not in ahead.stdout + ahead.stderr:
        sys.exit("The study is not finished; run it first: " + " ".join(command))
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    print(f"no-op rerun: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
