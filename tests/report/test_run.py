"""The stage as a whole: files on disk, words in the terminal."""

import json
from pathlib import Path

import pandas as pd
import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report import run_report
from rlassay.report.content import Content
from rlassay.report.gather import ResultsError
from rlassay.report.run import build_frames, write_numbers
from tests.report.conftest import SETTINGS
from tests.report.fake_content import fake_content, fake_partial

# MERGED FROM test_run.py: The stage as a whole: files on disk, words in the terminal.


def test_the_report_stage_writes_everything_and_says_what_came_out(
    copied: tuple[Study, Layout], capsys: pytest.CaptureFixture[str]
):
    study, layout = copied
    content = run_report(study, layout, SETTINGS)
    written = {path.relative_to(layout.report).as_posix() for path in layout.report.rglob("*") if path.is_file()}
    assert {"index.html", "report.md", "report.json", "tables/main.csv", "figures/forest_baseline.svg"} <= written
    said = capsys.readouterr().out
    for verdict in content.verdicts:
        assert verdict.sentence in said
    assert f"Page: {layout.report / 'index.html'}" in said

    # Again, from the same files: the same bytes everywhere.
    before = {path: path.read_bytes() for path in layout.report.rglob("*") if path.is_file()}
    run_report(study, layout, SETTINGS)
    assert {path: path.read_bytes() for path in layout.report.rglob("*") if path.is_file()} == before


def test_an_unfinished_study_is_refused_and_reported_on_in_part(
    copied: tuple[Study, Layout], capsys: pytest.CaptureFixture[str]
):
    study, layout = copied
    layout.train_manifest("runs/base/seed1").unlink()
    with pytest.raises(ResultsError, match="missing; make it with"):
        run_report(study, layout, SETTINGS)
    assert not layout.report.exists()
    run_report(study, layout, SETTINGS, partial=True)
    assert "Partial: 1 file is missing; the page says which." in capsys.readouterr().out
    assert (layout.partial_report / "index.html").is_file()
    assert not layout.report.exists()


def test_before_anything_is_scored_the_partial_report_is_empty_but_whole(copied: tuple[Study, Layout]):
    study, layout = copied
    for path in layout.root.rglob("*.scores.parquet"):
        path.unlink()
    content = run_report(study, layout, SETTINGS, partial=True)
    assert [column.metric for column in content.tables["main"].columns if column.primary] == [study.primary.metric]
    assert {cell.num_seeds for row in content.tables["main"].rows for cell in row.cells} == {0}
    assert {verdict.outcome for verdict in content.verdicts} == {"missing"}
    assert (layout.partial_report / "index.html").is_file()


# MERGED FROM test_writing.py: report.json and the tables: complete, readable again, the same bytes for the same
# content.


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
