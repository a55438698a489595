"""A hub model, taken through every stage of a short study."""

from pathlib import Path
from typing import Any

import pandas as pd

from rlassay.evaluation.generate import run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import NUM_TEST, only
from tests.training.short_run import RUN, fresh_layout, load_short, policy_of, proof


def take_through_every_stage(saved: Path, folder: Path, *, with_images: bool, adapters: bool = True) -> None:
    """Warm start, two steps of RL, answers of all three policies and their scores, each checked.

    Args:
        saved: folder of the model, as on the hub.
        folder: for the study and its results.
        with_images: whether rows show images.
        adapters: whether LoRA adapters are trained instead of all weights.
    """
    hub = {"kind": "hub", "name": str(saved), "dtype": "float32", "lora": {"r": 4} if adapters else None}
    quick = {"sft__learning_rate": 0.1, "sft__warmup_steps": 0, "rl__max_steps": 2, "evaluation__num_samples": 1}
    edits: dict[str, Any] = {"model": hub, **quick}
    study, layout = load_short(folder, **edits), fresh_layout(folder / "results")
    if not with_images:
        remove_images(layout)

    run_sft(study, layout, only(study, "sft"))
    run_rl(study, layout, policy_of(study))
    policies = (only(study, "model"), only(study, "sft"), policy_of(study))
    for policy in policies:
        run_generate(study, layout, policy, "test")
        run_score(study, layout, policy, "test")

    assert list(proof(layout)["sha256"]) == ["adapter_model.safetensors" if adapters else "model.safetensors"]
    answers = [list(read_rows(layout.completions(each.folder, "test"), CompletionRow)) for each in policies]
    assert [len(each) for each in answers] == [2 * NUM_TEST] * 3  # a sampled and a greedy one per prompt
    assert len({tuple(one.text for one in each) for each in answers}) == 3
    assert set(pd.read_parquet(layout.scores(RUN, "test"))["metric"]) > {"choice_accuracy", "soft_overlong"}


def remove_images(layout: Layout) -> None:
    """Remove the images from all rows."""
    for split in ("sft", "train", "test"):
        rows = [row.model_copy(update={"media": ()}) for row in read_rows(layout.split(split))]
        write_rows(layout.split(split), rows)
