"""Time and memory of the report of 30 finished runs: five arms x six seeds, 1,000 prompts x 8 samples each.

Results are made up and written to a temporary folder first. The figures are printed last; the aim is under 60 s and
2 GiB.
Run from the project's root: python -m benchmarks.report_time
"""

import resource
import tempfile
import time
from pathlib import Path

from rlassay.config.settings import Settings
from rlassay.report import run_report
from tests.report.synthetic import Size, write_synthetic

SIZE = Size(
    arms=("base", "accuracy_only", "format_only", "dr_grpo", "second_base"),
    seeds=(1, 2, 3, 4, 5, 6),
    items=1000,
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
        times: list[tuple[float, float]] = []
        for _ in range(2):
            start = time.perf_counter(), time.process_time()
            run_report(study, layout, Settings(study=study.name, results=folder))
            times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        size = sum(path.stat().st_size for path in layout.report.rglob("*") if path.is_file())
    print(f"size of the report folder: {size / 1e6:.1f} MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, cpu = max(times)
    print(f"report of {len(SIZE.arms) * len(SIZE.seeds)} finished runs: {wall:.1f} s, {cpu:.1f} CPU s, {peak:.2f} GiB")


if __name__ == "__main__":
    main()
