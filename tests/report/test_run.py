"""The stage as a whole: files on disk, words in the terminal."""

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report import run_report
from rlassay.report.reading import ResultsError
from tests.report.conftest import SETTINGS


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
    layout.train_sentinel("runs/base/seed1").unlink()
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
