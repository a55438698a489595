"""report.json and the tables: complete, readable again, the same bytes for the same content."""

import json
from pathlib import Path

import pandas as pd
import pytest

from rlassay.report.content import Content
from rlassay.report.writing import build_frames, write_numbers
from tests.report.fake_content import fake_content, fake_partial


@pytest.mark.parametrize("content", [fake_content(), fake_partial()])
def test_report_json_reads_back_as_the_same_content(tmp_path: Path, content: Content):
    write_numbers(content, tmp_path)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert Content.model_validate_json(text) == content
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_the_same_content_is_the_same_bytes(tmp_path: Path):
    for folder in ("one", "two"):
        write_numbers(fake_content(), tmp_path / folder)
    one, two = (sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file()) for folder in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert len(one) == 1 + len(build_frames(fake_content()))


def test_tables_of_an_earlier_report_are_removed(tmp_path: Path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "stale.csv").write_text("old")
    write_numbers(fake_content(), tmp_path)
    assert not (tmp_path / "tables" / "stale.csv").exists()


def test_a_table_has_one_row_per_number_with_what_it_rests_on(tmp_path: Path):
    write_numbers(fake_content(), tmp_path)
    main = pd.read_csv(tmp_path / "tables" / "main.csv")
    assert len(main) == 6 * 3
    first = main.iloc[0]
    assert (first["row"], first["column"], first["num_seeds"], first["num_items"]) == (
        "untrained",
        "test/choice_accuracy/sampled",
        1,
        400,
    )
    verdicts = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    assert verdicts["difference.effect"].tolist() == [0.081, -0.12, 0.004]
    curves = pd.read_csv(tmp_path / "tables" / "curves.csv")
    assert len(curves) == 3 * 4 * 30


def test_half_a_surrogate_pair_in_a_completion_stays_valid_json(tmp_path: Path):
    content = fake_content()
    example = content.examples[0]
    broken = example.completions[0].model_copy(update={"text": "half \ud800 pair"})
    examples = (example.model_copy(update={"completions": (broken,)}),)
    write_numbers(content.model_copy(update={"examples": examples}), tmp_path)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["examples"][0]["completions"][0]["text"] == "half \ud800 pair"
