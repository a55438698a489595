"""The report stage: files on disk, messages in the terminal, and the content of report.json."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report import run_report
from rlassay.report.content import Content
from rlassay.report.export.latex import latex_tables
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.run import build_content, build_frames, rewrite, write_numbers
from rlassay.tracking.links import Links, arms_link, keep_links
from tests.report.conftest import SETTINGS
from tests.report.fake_content import fake_content, fake_partial


def test_the_report_stage_writes_all_files_and_prints_the_verdicts(
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

    # A second run on the same results writes the same bytes.
    before = {path: path.read_bytes() for path in layout.report.rglob("*") if path.is_file()}
    run_report(study, layout, SETTINGS)
    assert {path: path.read_bytes() for path in layout.report.rglob("*") if path.is_file()} == before


def test_the_page_links_each_row_and_each_run_to_mlflow(copied: tuple[Study, Layout]):
    study, layout = copied
    assert run_report(study, layout, SETTINGS).mlflow is None
    assert "/#/experiments/" not in (layout.report / "index.html").read_text()
    at = "http://127.0.0.1:5000/#/experiments/7/runs"
    keep_links(
        layout.tracking,
        Links(
            uri="sqlite:///mlflow.db",
            arms=arms_link("sqlite:///mlflow.db", "7"),
            runs={"runs/base/seed1": f"{at}/one", "runs/removed/seed1": f"{at}/two"},
            parents={"runs/base": f"{at}/three", "models/removed": f"{at}/four"},
        ),
    )
    content = run_report(study, layout, SETTINGS)
    assert content.mlflow is not None
    assert content.mlflow.rows == {"base": f"{at}/three"}
    assert content.mlflow.policies == {"runs/base/seed1": f"{at}/one"}
    page = (layout.report / "index.html").read_text()
    assert f'<a href="{at}?viewStateShareKey=rlassay-arms">the arms side by side</a>' in page
    curves = f"{at}?viewStateShareKey=rlassay-runs&amp;compareRunsMode=CHART"
    assert f'<a href="{curves}">training curves by arm</a>' in page
    assert f'<a href="{at}/three">{study.arms["base"].label}</a>' in page
    assert f'<a href="{at}/one" aria-label="MLflow run of runs/base/seed1">MLflow</a>' in page


def test_report_json_alone_gives_all_tables_and_figures_again(copied: tuple[Study, Layout]):
    study, layout = copied
    run_report(study, layout, SETTINGS)
    kept = {
        path: path.read_bytes()
        for path in layout.report.rglob("*")
        if "completions" not in str(path) and path.is_file()
    }
    for path in kept:
        if path.name != "report.json":
            path.unlink()
    for folder in (layout.root / "runs", layout.root / "sft", layout.root / "models"):
        shutil.rmtree(folder)
    rewrite(layout.report)
    assert {path: path.read_bytes() for path in kept} == kept
    assert {path.suffix for path in kept} == {".json", ".html", ".md", ".csv", ".tex", ".svg"}

    (layout.report / "report.json").write_text('{"study": 1}')
    with pytest.raises(ResultsError, match=r"report\.json is damaged"):
        rewrite(layout.report)


def test_an_unfinished_study_gets_only_a_partial_report(
    copied: tuple[Study, Layout], capsys: pytest.CaptureFixture[str]
):
    study, layout = copied
    layout.train_manifest("runs/base/seed1").unlink()
    with pytest.raises(ResultsError, match="missing; make it with"):
        run_report(study, layout, SETTINGS)
    assert not layout.report.exists()
    run_report(study, layout, SETTINGS, partial=True)
    assert "Partial: 1 file is missing; the page lists them." in capsys.readouterr().out
    assert (layout.partial_report / "index.html").is_file()
    assert not layout.report.exists()


def test_a_partial_report_without_scores_has_empty_tables(copied: tuple[Study, Layout]):
    study, layout = copied
    for path in layout.root.rglob("*.scores.parquet"):
        path.unlink()
    content = run_report(study, layout, SETTINGS, partial=True)
    assert [column.metric for column in content.tables["main"].columns if column.primary] == [study.primary.metric]
    assert {cell.num_seeds for row in content.tables["main"].rows for cell in row.cells} == {0}
    assert {verdict.outcome for verdict in content.verdicts} == {"missing"}
    assert (layout.partial_report / "index.html").is_file()


# The content.


@pytest.fixture(scope="module")
def content(results: Results) -> Content:
    return build_content(results, SETTINGS.report)


def test_known_effects_come_out(content: Content):
    assert {one.arm: one.outcome for one in content.verdicts} == {
        "accuracy_only": "better",
        "format_only": "worse",
        "dr_grpo": "not resolved",
    }
    assert [arm.start for arm in content.arms] == ["sft"] * 4
    assert content.complete


def test_every_cell_has_its_seeds_items_and_coverage(content: Content):
    for table in content.tables.values():
        for row in table.rows:
            for cell in row.cells:
                assert cell.num_items == 24
                assert cell.num_seeds == (3 if row.kind == "arm" else 1)
                assert cell.covers == ("seeds and items" if row.kind == "arm" else "items")


def test_the_same_files_give_the_same_content(results: Results, content: Content):
    again = gather(results.study, results.layout, SETTINGS)
    assert build_content(again, SETTINGS.report).model_dump_json() == content.model_dump_json()


def test_other_times_and_resumes_change_cost_and_resumes_alone(copied: tuple[Study, Layout]):
    study, layout = copied
    before = build_content(gather(study, layout, SETTINGS), SETTINGS.report).model_dump()
    path = layout.train_manifest("runs/base/seed1")
    slower = {"seconds": 999.0, "peak_memory_mb": 1.0, "resumes": [{"step": 4, "time": 5.0}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | slower))
    metrics = layout.metrics("runs/base/seed1")
    lines = [json.loads(line) | {"time": 0.0, "time/step": 7.0} for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = build_content(gather(study, layout, SETTINGS), SETTINGS.report).model_dump()
    assert {key for key in before if before[key] != after[key]} == {"cost", "resumes"}


def test_a_partial_report_is_marked_and_lists_missing_files(copied: tuple[Study, Layout]):
    study, layout = copied
    for seed in (1, 2, 3):
        layout.train_manifest(f"runs/dr_grpo/seed{seed}").unlink()
    for seed in (2, 3):
        layout.scores(f"runs/format_only/seed{seed}", "test").unlink()
    content = build_content(gather(study, layout, SETTINGS, partial=True), SETTINGS.report)
    assert not content.complete
    assert len(content.missing) == 5
    assert {one.arm: one.outcome for one in content.verdicts} == {
        "accuracy_only": "better",
        "format_only": "seed variance not measured",
        "dr_grpo": "missing",
    }
    row = content.tables["main"].rows[-1]
    assert (row.row, row.cells[0].mean, row.cells[0].num_seeds) == ("dr_grpo", None, 0)


def test_a_partial_report_without_finished_policies(copied: tuple[Study, Layout]):
    study, layout = copied
    for path in layout.root.rglob("*.scores.parquet"):
        path.unlink()
    content = build_content(gather(study, layout, SETTINGS, partial=True), SETTINGS.report)
    assert {one.outcome for one in (*content.verdicts, *content.gains)} == {"missing"}
    assert content.curves == ()
    assert all(shown == () for shown in (example.completions for example in content.examples))


# report.json and tables/*.csv.


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
    assert len(one) == 1 + len(build_frames(fake_content())) + len(latex_tables(fake_content()))


def test_tables_of_an_earlier_report_are_removed(tmp_path: Path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "stale.csv").write_text("old")
    write_numbers(fake_content(), tmp_path)
    assert not (tmp_path / "tables" / "stale.csv").exists()


def test_a_table_file_has_one_row_per_number_with_seeds_and_items(tmp_path: Path):
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


def test_columns_do_not_depend_on_numbers_that_may_be_absent(results: Results):
    content = build_content(results, SETTINGS.report)
    one = content.summaries[0].model_copy(update={"tokens_per_point": content.summaries[0].iqm})
    other = one.model_copy(update={"tokens_per_point": None})
    columns = [
        list(build_frames(content.model_copy(update={"summaries": arms}))["summaries"])
        for arms in ((one, one), (one, other), (other, other))
    ]
    assert columns[0] == columns[1] == columns[2]
    assert "tokens_per_point" not in columns[0]
    assert "tokens_per_point.mean" in columns[0]


def test_half_a_surrogate_pair_in_a_completion_stays_valid_json(tmp_path: Path):
    content = fake_content()
    example = content.examples[0]
    broken = example.completions[0].model_copy(update={"text": "half \ud800 pair"})
    examples = (example.model_copy(update={"completions": (broken,)}),)
    write_numbers(content.model_copy(update={"examples": examples}), tmp_path)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["examples"][0]["completions"][0]["text"] == "half \ud800 pair"
