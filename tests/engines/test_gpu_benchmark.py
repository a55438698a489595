"""The benchmark for GPU machines runs from start to end at a toy size on CPU."""

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import TEXT
from tests.engines.vllm_process import needs_torchvision


@needs_torchvision
def test_every_figure_of_every_shape_is_printed_at_a_toy_size():
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--steps", "1"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    patterns = [
        r"step: TRL [\d.]+ s, ours with credit [\d.]+ s",
        r"step time, ours over TRL: [\d.]+",
        r"tokens per second and GPU: TRL \d+, ours \d+",
        r"shares of a step: generation \d+%, reward \d+%, signals \d+%, update \d+%",
        r"peak memory: TRL \d+ MiB, ours \d+ MiB",
        r"attention mass over a plain scoring pass: [\d.]+ at 32, [\d.]+ at 64 tokens",
    ]
    lines = done.stdout.splitlines()
    assert len(lines) == 7 * len(TEXT)
    for index, shape in enumerate(TEXT):
        title, *figures = lines[7 * index : 7 * index + 7]
        assert title.startswith(f"{shape} (toy): ")
        for line, pattern in zip(figures, patterns, strict=True):
            assert re.match(f"  {pattern}", line), line
