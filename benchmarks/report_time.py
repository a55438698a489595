"""How long the report of 15 finished runs takes: five arms x three seeds, as large as the built-in study.

Results are made up and written to a temporary folder first. The figure is printed last; the aim is under 30 s.
Run from the project's root: python -m benchmarks.report_time
"""

import tempfile
import time
from pathlib import Path

from rlassay.config.settings import Settings
from rlassay.report import run_report
from tests.report.synthetic import Size, write_synthetic

SIZE = Size(
    arms=("base", "accuracy_only", "format_only", "dr_grpo", "second_base"),
    items=400,
    samples=8,
    steps=60,
    prompts_per_step=16,
    generations=8,
    accuracy={
        "untrained": 0.05,
        "sft": 0.35,
        "base": 0.45,
        "accuracy_only": 0.5,
        "format_only": 0.3,
        "dr_grpo": 0.45,
        "second_base": 0.47,
    },
)


def main() -> None:
    """Write the results, time the report twice (the first run also loads matplotlib's fonts), print the slower one."""
    with tempfile.TemporaryDirectory() as folder:
        study, layout = write_synthetic(Path(folder), SIZE)
        times: list[float] = []
        for _ in range(2):
            start = time.perf_counter()
            run_report(study, layout, Settings(study=study.name, results=folder))
            times.append(time.perf_counter() - start)
        size = sum(path.stat().st_size for path in layout.report.rglob("*") if path.is_file())
    print(f"size of the report folder: {size / 1e6:.1f} MB")
    print(f"report of {len(SIZE.arms) * len(SIZE.seeds)} finished runs: {max(times):.1f} s")


if __name__ == "__main__":
    main()
