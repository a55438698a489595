"""Adds the files of token credit to a synthetic results folder: token shards, metrics, scales.

The arms have four kinds of credit in turn: uniform, weights from attention, a perception filter, and the filter with
trajectory scaling.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import PromptRow, read_rows
from tests.report.synthetic import HOSTILE, Size, write_synthetic

KINDS = ("uniform", "attention", "filter", "scaled")
GRID = (4, 8)
"""Image tokens of the tiny model: rows and columns."""
TOKENS = pa.schema(
    [
        ("step", pa.int32()),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("tokens", pa.list_(pa.string())),
        *((name, pa.list_(pa.float32())) for name in ("weight", "entropy", "perception", "dominance")),
        ("vision_attention", pa.list_(pa.float32())),
        ("vision_grid", pa.list_(pa.int32())),
        *((name, pa.float32()) for name in ("advantage", "reward", "scale")),
    ]
)


def write_with_credit(results: Path, size: Size) -> tuple[Study, Layout]:
    """`write_synthetic`, with the files of token credit in every run."""
    study, layout = write_synthetic(results, size)
    _draw_image(layout.data / "images" / "pair.png")
    prompts = list(read_rows(layout.split("train")))
    for place, arm in enumerate(study.arms):
        for seed in study.seeds:
            policy = layout.run(arm, seed)
            rng = np.random.default_rng([place, seed])
            kind = KINDS[place % len(KINDS)]
            for step in range(1, size.steps + 1):
                first = 2 * step % len(prompts)
                rows = [
                    watched(step, prompt, sample, kind, rng)
                    for prompt in prompts[first : first + 2]
                    for sample in range(size.generations)
                ]
                write_shard(layout.tokens(policy), step, rows)
            _add_metrics(layout.metrics(policy), kind, rng)
            if kind == "scaled":
                _add_scales(layout.rollouts(policy), rng)
    return study, layout


def write_shard(folder: Path, step: int, rows: list[dict[str, Any]]) -> None:
    """One token shard, as training writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=TOKENS), folder / f"step{step:06d}.parquet")


def row_of(**changes: Any) -> dict[str, Any]:
    """A shard row for tests by hand: no signals, advantage and reward 0, then `changes`."""
    row: dict[str, Any] = dict.fromkeys(TOKENS.names)
    return row | {"step": 1, "prompt_id": "p", "sample": 0, "advantage": 0.0, "reward": 0.0} | changes


def drop_columns(path: Path, names: list[str], shorten: bool = False) -> None:
    """Damage a shard: remove the columns `names`, or the last weight of each row."""
    table = pq.read_table(path).drop_columns(names)
    if shorten:
        rows = [row | {"weight": row["weight"][:-1]} for row in table.to_pylist()]
        table = pa.Table.from_pylist(rows, schema=TOKENS)
    pq.write_table(table, path)


def watched(step: int, prompt: PromptRow, sample: int, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """One watched completion of eight tokens, the last one end-of-sequence."""
    digit, letter = str(rng.choice(list("1357"))), str(rng.choice(list("ABCD")))
    tokens = ["<think>", digit, letter, "</think>", "<answer>", letter, "</answer>", ""]
    tokens = [HOSTILE, *tokens[1:]] if sample == 1 else tokens
    perception = np.array([0.01, 0.9, 0.5, 0.02, 0.01, 0.3, 0.01, 0.0]) * rng.uniform(0.5, 1.5, 8)
    dominance = 2.0 / (0.2 + perception)
    weights = 1 / dominance
    weight = {"uniform": np.ones(8), "attention": weights / weights.mean()}.get(kind, (perception > 0.2).astype(float))
    measured = kind != "uniform"
    attention = rng.dirichlet(np.linspace(0.2, 2.0, 32)) * 0.3
    return {
        "step": step,
        "prompt_id": prompt.prompt_id,
        "sample": sample,
        "tokens": tokens,
        "weight": weight.tolist(),
        "entropy": rng.uniform(0, 1, 8).tolist() if measured else None,
        "perception": perception.tolist() if measured else None,
        "dominance": dominance.tolist() if measured else None,
        "vision_attention": attention.tolist() if measured else None,
        "vision_grid": list(GRID) if measured else None,
        "advantage": float(rng.normal()),
        "reward": float(letter == prompt.answer),
        "scale": float(rng.uniform(0.9, 1.1)) if kind == "scaled" else None,
    }


def _draw_image(path: Path) -> None:
    """Two bright blobs side by side."""
    y, x = np.mgrid[0:8, 0:16]
    light = 255 * np.exp(-((np.minimum(abs(x - 4), abs(x - 11)) ** 2 + (y - 4) ** 2) / 6))
    Image.fromarray(light.astype(np.uint8)).save(path)


def _add_metrics(path: Path, kind: str, rng: np.random.Generator) -> None:
    if kind == "uniform":
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for place, part in enumerate(("early", "middle", "late", "all"), 1):
            mdi = (2.0 + place) * np.exp(-0.05 * line["step"]) + 0.1 * rng.random()
            line |= {f"attention/{part}/mdi": mdi, f"attention/{part}/mdi_balance": max(0.0, 1 - abs(np.log(mdi)))}
            line |= {f"attention/{part}/aei_text": 1.2, f"attention/{part}/aei_vision": 1.2 / mdi}
        if kind != "attention":
            line |= {"perception_token_fraction": 0.4, "sensitivity_score_mean": 0.2 + 0.01 * line["step"]}
            line |= {"combined_token_fraction": 0.4}
        if kind == "scaled":
            line |= {"scaling_factor_mean": 1.0, "dynamic_scaling_max": 1.125}
        line["time/signals"] = 0.25 * line["time/step"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _add_scales(folder: Path, rng: np.random.Generator) -> None:
    for path in sorted(folder.glob("step*.parquet")):
        table = pq.read_table(path)
        scales = pa.array(rng.uniform(0.9, 1.1, len(table)), pa.float32())
        pq.write_table(table.append_column("scale", scales), path)
