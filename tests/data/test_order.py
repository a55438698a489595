"""Every source gives the same rows in the same order, whatever the hash seed of the process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlassay.data import SOURCES

ROOT = Path(__file__).parents[2]
# Prints one digest per source, over its rows and its images.
PROGRAM = """
import hashlib, json, sys, tempfile
from pathlib import Path
from pydantic import TypeAdapter
from rlassay.config import load_study
from rlassay.config.data import DataConfig
from rlassay.data import run_prepare_data
from rlassay.layout import Layout

for kind, section in json.loads(sys.argv[1]).items():
    data = TypeAdapter(DataConfig).validate_json(json.dumps(section))
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=Path(folder))
        run_prepare_data(load_study("digits", "tiny").model_copy(update={"data": data}), layout)
        content = json.loads(layout.data_manifest.read_text())
        print(kind, hashlib.sha256(json.dumps([content["splits"], content["sha256"]]).encode()).hexdigest())
"""


def sections(folder: Path) -> dict[str, dict]:
    """A small section of each kind, and the files that it reads."""
    turns = [[{"from": "human", "value": f"What is {n}?"}, {"from": "gpt", "value": str(n)}] for n in range(6)]
    records: dict[str, list[dict]] = {
        "jsonl": [{"question": f"What is {n}?", "answer": str(n), "media": [{"path": f"{n}.png"}]} for n in range(6)],
        "table": [{"question": f"What is {n}?", "answer": str(n)} for n in range(6)],
        "summarization": [{"document": f"Much about {n}.", "summary": f"About {n}."} for n in range(6)],
        "jsonl_prompts": [{"prompt": f"What is {n}?", "answer": str(n), "images": [f"{n}.png"]} for n in range(6)],
        "conversations": [{"conversations": turn, "image": f"{n}.png"} for n, turn in enumerate(turns)],
    }
    for kind, rows in records.items():
        (folder / kind).mkdir()
        for split, part in (("train", rows[:4]), ("test", rows[3:])):
            (folder / kind / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    small = {"splits": {"train": 6, "test": 3}}
    origin = {kind: {"origin": {"kind": "json", "folder": str(folder / kind)}} for kind in ("table", "summarization")}
    more: dict[str, dict] = {
        "digits": small,
        "aokvqa": small | {"origin": {"kind": "builtin"}},
        "gsm8k": small | {"origin": {"kind": "builtin"}},
        "moving_digits": small,
        "docstrings": small | {"packages": ["pyarrow", "PIL"]},
        "headlines": small | {"packages": ["pyarrow", "PIL"]},
        **{kind: {"folder": str(folder / kind)} for kind in ("jsonl", "jsonl_prompts", "conversations")},
        **origin,
    }
    return {kind: {"kind": kind} | section for kind, section in more.items()}


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    text = json.dumps(sections(tmp_path_factory.mktemp("in")))
    lines: list[list[str]] = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, text],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines())
    return lines


def test_no_source_is_left_out(digests: list[list[str]]):
    assert {line.split()[0] for line in digests[0]} == set(SOURCES)


def test_the_order_and_the_bytes_are_the_same_in_every_process(digests: list[list[str]]):
    assert digests[0] == digests[1]
