"""Near-duplicates and leaks, through the whole of a source."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rlassay.config.data import Columns, Files, Table
from rlassay.data import SOURCES
from rlassay.data.drafts import RowRefusedError
from rlassay.data.duplicates import plain
from rlassay.data.images import Images


def noise(seed, kind="PNG", size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def row(question, image):
    return {"question": question, "answer": "yes", "image": image}


def take(tmp_path, **splits):
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    origin = Files(kind="parquet", folder=str(tmp_path))
    section = Table(kind="table", origin=origin, columns=Columns(images="image"), splits=dict.fromkeys(splits))
    found = {split: list(rows) for split, rows in SOURCES["table"](section, Images(tmp_path / "out")).items()}
    kept = {split: [row for row in rows if not isinstance(row, RowRefusedError)] for split, rows in found.items()}
    return kept, {
        split: [str(row) for row in rows if isinstance(row, RowRefusedError)] for split, rows in found.items()
    }


def test_within_a_split_the_same_words_and_the_same_picture_are_one_prompt(tmp_path):
    rows = [
        row("Is it red?", noise(0)),
        row("is it RED", noise(0, "JPEG")),  # other words for a machine, other bytes: the same prompt
        row("Is it red?", noise(1)),
        row("Is it blue?", noise(0)),
    ]
    kept, refused = take(tmp_path, test=rows)
    assert [item.question for item in kept["test"]] == ["Is it red?", "Is it red?", "Is it blue?"]
    assert refused["test"] == ["duplicate: nearly the same prompt stands in the split 'test'"]


def test_training_rows_that_show_an_evaluation_image_are_refused(tmp_path):
    train = [row("Is it red?", noise(0)), row("Is it new?", noise(0, "JPEG", (96, 72))), row("Is it red?", noise(2))]
    kept, refused = take(tmp_path, train=train, test=[row("Is it red?", noise(0)), row("And it?", noise(1))])
    assert list(kept) == ["test", "train"]
    assert (len(kept["test"]), len(kept["train"])) == (2, 1)
    assert refused["train"] == [
        "duplicate: nearly the same prompt stands in the split 'test'",
        "leak: nearly the same image stands in the split 'test'",
    ]


def test_text_rows_leak_by_their_words_and_flat_images_by_their_bytes(tmp_path):
    flat = [io.BytesIO(), io.BytesIO()]
    Image.new("RGB", (9, 9), "red").save(flat[0], "PNG")
    Image.new("RGB", (9, 9), "blue").save(flat[1], "PNG")
    red, blue = (one.getvalue() for one in flat)
    kept, refused = take(
        tmp_path,
        test=[row("What is 3 + 4?", None), row("Which colour?", red)],
        train=[row("what is 3 + 4", None), row("What is 3 - 4?", None), row("Which colour?", blue), row("Tell", red)],
    )
    assert [item.question for item in kept["train"]] == ["What is 3 - 4?", "Which colour?"]
    assert [reason.split(":")[0] for reason in refused["train"]] == ["duplicate", "leak"]


def test_what_counts_as_the_same_words():
    assert plain("What  IS 3 + 4?") == plain("what is 3+4") != plain("what is 3 - 4")
    assert plain("Ｗhat, is it") == plain("what is it!")
