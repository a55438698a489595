"""How long a study takes from nothing to its report: python benchmarks/study_time.py [--scale tiny] [--study NAME].

Results go to a new folder that is removed again, MLflow's store stays where the settings say. Figures are printed last:
what each arm gains over the policy that its RL started from, then the wall time. The aims: the built-in study under 20
minutes on two cores and its arm for accuracy 5 points above its start with an interval above 0; any study at the scale
`tiny` under 4 minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the study once and print what came out and how long it took."""
    parser = argparse.ArgumentParser(description="Wall time of a study, from nothing to its report.")
    parser.add_argument("--study", default="digits")
    parser.add_argument("--scale", default="null")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        snakemake = str(Path(sys.executable).with_name("snakemake"))
        config = [f"study={args.study}", f"scale={args.scale}", f"results={results}"]
        start = time.perf_counter()
        subprocess.run([snakemake, "--cores", "all", "ablation_report", "--config", *config], check=True)
        seconds = time.perf_counter() - start
        report = next(Path(results).glob("*/report/report.json"))
        for gain in json.loads(report.read_text())["gains"]:
            print(gain["sentence"])
    print(f"{args.study}, scale {args.scale}: {seconds / 60:.1f} min")


if __name__ == "__main__":
    main()
