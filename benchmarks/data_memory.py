"""How much memory the data stage takes for a million rows, and how fast it is.

Rows are made up and written to a temporary folder, 100,000 and then 1,000,000 of them, and each file is prepared in a
process of its own. The aim: beyond what 100,000 rows take, a row costs its digests (some 30 bytes) and nothing else.
The figure is printed last. Run from the project's root: python -m benchmarks.data_memory [--kind KIND]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlassay.config import load_study
from rlassay.config.data import Conversations, DataSection, Files, Jsonl, JsonlPrompts, Table
from rlassay.data import run_prepare_data
from rlassay.layout import Layout

SIZES = (100_000, 1_000_000)
KINDS = ("jsonl", "jsonl_prompts", "conversations", "table")


def record(kind: str, number: int) -> dict[str, Any]:
    """One made-up record in the form of a source."""
    question, answer = f"How many apples are {number} apples and {number % 97} apples?", str(number + number % 97)
    if kind == "conversations":
        return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
    return {"prompt" if kind == "jsonl_prompts" else "question": question, "answer": answer}


def section(kind: str, folder: str) -> DataSection:
    """The `data` section that reads those records."""
    splits: dict[str, int | None] = {"train": None, "test": 1_000}
    if kind == "jsonl":
        return Jsonl(kind="jsonl", folder=folder, splits=splits)
    if kind == "jsonl_prompts":
        return JsonlPrompts(kind="jsonl_prompts", folder=folder, splits=splits)
    if kind == "conversations":
        return Conversations(kind="conversations", folder=folder, splits=splits)
    return Table(kind="table", origin=Files(kind="json", folder=folder), splits=splits)


def prepare(kind: str, folder: Path) -> None:
    """Prepare the records of a folder; print rows, seconds, and the process's highest memory use in MB."""
    study = load_study("digits").model_copy(update={"data": section(kind, str(folder))})
    start = time.perf_counter()
    facts = run_prepare_data(study, Layout(root=folder / "results"))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": facts["train"].rows, "seconds": seconds, "peak": peak}))


def measured(kind: str, count: int) -> dict[str, float]:
    """What preparing so many rows takes, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        for split, first, last in (("train", 0, count), ("test", 10**7, 10**7 + 1_000)):
            with (Path(name) / f"{split}.jsonl").open("w") as out:
                out.writelines(json.dumps(record(kind, number)) + "\n" for number in range(first, last))
        command = [sys.executable, "-m", "benchmarks.data_memory", "--kind", kind, "--prepare", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)


def main() -> None:
    """Measure both sizes and print the difference."""
    parser = argparse.ArgumentParser(description="Memory and speed of the data stage.")
    parser.add_argument("--kind", choices=KINDS, default="jsonl", help="source [%(default)s]")
    parser.add_argument("--prepare", type=Path, help="prepare the records of this folder, and measure nothing else")
    args = parser.parse_args()
    if args.prepare is not None:
        prepare(args.kind, args.prepare)
        return
    few, many = (measured(args.kind, count) for count in SIZES)
    growth = many["peak"] - few["peak"]
    per_row = growth * 2**20 / (many["rows"] - few["rows"])
    for one in (few, many):
        print(f"{one['rows']:>9,.0f} rows: peak {one['peak']:.0f} MB, {one['rows'] / one['seconds']:,.0f} rows/s")
    print(f"from {SIZES[0]:,} to {SIZES[1]:,} rows: {growth:+.1f} MB of memory, {per_row:.0f} bytes per row")


if __name__ == "__main__":
    main()
