"""The table of rollouts in MLflow."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from rlassay.layout import Layout
from rlassay.records import Media, PromptRow, write_rows
from rlassay.tracking.runs import training_run
from rlassay.tracking.samples import PER_STEP, STEPS, RolloutTable, evenly_spaced
from rlassay.tracking.store import Store
from tests.tracking.folders import START, FakeJob, small_folder, small_study
from tests.tracking.reading import Reader

RUN = "runs/base/seed1"


def with_images(layout: Layout) -> None:
    """A train split whose second prompt shows an image, and its third two, of which one is missing."""
    folder = layout.data / "images"
    folder.mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "red.png")
    shown, absent = Media(path="images/red.png"), Media(path="images/absent.png")
    rows = [
        PromptRow(prompt_id="a", question="Free?", answer="yes"),
        PromptRow(prompt_id="b", question="Which?", answer="B", choices=("one", "two"), media=(shown,)),
        PromptRow(prompt_id="c", question="Both?", answer="no", media=(shown, absent)),
    ]
    write_rows(layout.split("train"), rows)


def write_shard(layout: Layout, step: int, prompt_id: str, rows: int = 1) -> None:
    folder = layout.rollouts(RUN)
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "reward": 0.5,
        "raw.rouge": float("nan"),
        "weighted.rouge": 0.0,
        "advantage": -1.50000006,
        "signal.entropy": 2.0,
    }
    frame = pd.DataFrame(
        {"step": step, "prompt_id": prompt_id, "sample": range(rows), "completion": "text", "token_count": 7} | values
    )
    frame.to_parquet(folder / f"step{step:06}.parquet", index=False)


def test_rows_have_prompt_gold_answer_images_rewards_and_advantage(tmp_path: Path) -> None:
    layout = small_folder(tmp_path, small_study())
    with_images(layout)
    rollouts = RolloutTable(layout, RUN)
    assert rollouts.make() is None
    for step, prompt in enumerate(("a", "b", "c", "gone"), 1):
        write_shard(layout, step, prompt)
    table = rollouts.make()
    assert table is not None
    columns = ["step", "image", "image 2", "prompt", "gold", "completion", "reward", "rouge", "advantage"]
    assert table.columns == [*columns, "token_count", "sample", "prompt_id"]
    path = "table_images/rollouts/images/red.png"
    picture = {"type": "image", "filepath": path, "compressed_filepath": path}
    rest = ["text", 0.5, None, -1.5, 7, 0]  # no NaN in JSON
    assert table.data == [
        [1, None, None, "Free?", "yes", *rest, "a"],
        [2, picture, None, "Which?\nA one\nB two", "B two", *rest, "b"],
        [3, picture, None, "Both?", "no", *rest, "c"],
        [4, None, None, None, None, *rest, "gone"],  # a prompt of earlier data
    ]
    assert table.images == {path: layout.data / "images/red.png"}


def test_all_steps_are_sampled(tmp_path: Path) -> None:
    layout = small_folder(tmp_path, small_study())
    for step in range(1, 131):
        write_shard(layout, step, "train0", rows=6)
    table = RolloutTable(layout, RUN).make()
    assert table is not None
    steps = [row[0] for row in table.data]
    assert len(steps) == STEPS * PER_STEP
    assert steps[:5] == [1, 1, 1, 1, 3]
    assert steps[-1] == 130
    assert evenly_spaced([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert evenly_spaced([1, 2], 3) == [1, 2]


def test_an_image_is_uploaded_once(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", reader.uri)  # `load_table` searches there whatever its client's store
    study = small_study()
    job = FakeJob.of(study, small_folder(tmp_path / "results", study), RUN)
    with_images(job.layout)
    write_shard(job.layout, 1, "b")
    store = Store(reader.uri, study.id, job.layout.tracking)
    run = store.get_or_create(training_run(study, job.policy, "one"), START)
    rollouts = RolloutTable(job.layout, RUN)
    for step in (2, 3):
        table = rollouts.make()
        assert table is not None
        store.add_table(run, "rollouts.json", table)
        uploaded = Path(str(run.info.artifact_uri)) / "table_images/rollouts/images/red.png"
        assert uploaded.read_bytes() == (job.layout.data / "images/red.png").read_bytes()
        written = uploaded.stat().st_mtime_ns
        write_shard(job.layout, step, "c")
    assert uploaded.stat().st_mtime_ns == written
    # MLflow's own reader takes it for a table
    loaded = reader.client.load_table(run.info.experiment_id, "rollouts.json", run_ids=[run.info.run_id])
    assert list(loaded["gold"]) == ["B two", "no"]
