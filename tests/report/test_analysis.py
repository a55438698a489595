"""The whole content: known effects come out, equal inputs give equal content, recorded times stay in their place."""

import json

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.analysis import analyse
from rlassay.report.content import Content
from rlassay.report.gather import Results, gather
from tests.report.conftest import SETTINGS


@pytest.fixture(scope="module")
def content(results: Results) -> Content:
    return analyse(results, SETTINGS.report)


def test_known_effects_come_out(content: Content):
    assert {one.arm: one.outcome for one in content.verdicts} == {
        "accuracy_only": "better",
        "format_only": "worse",
        "dr_grpo": "not resolved",
    }
    assert [arm.start for arm in content.arms] == ["sft"] * 4
    assert content.complete


def test_every_figure_of_the_content_carries_what_it_rests_on(content: Content):
    for table in content.tables.values():
        for row in table.rows:
            for cell in row.cells:
                assert cell.num_items == 24
                assert cell.num_seeds == (3 if row.kind == "arm" else 1)
                assert cell.covers == ("seeds and items" if row.kind == "arm" else "items")


def test_the_same_files_give_the_same_content(results: Results, content: Content):
    again = gather(results.study, results.layout, SETTINGS)
    assert analyse(again, SETTINGS.report).model_dump_json() == content.model_dump_json()


def test_other_times_and_resumes_change_cost_and_resumes_alone(copied: tuple[Study, Layout]):
    study, layout = copied
    before = analyse(gather(study, layout, SETTINGS), SETTINGS.report).model_dump()
    path = layout.train_sentinel("runs/base/seed1")
    slower = {"seconds": 999.0, "peak_memory_mb": 1.0, "resumes": [{"step": 4, "time": 5.0}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | slower))
    metrics = layout.metrics("runs/base/seed1")
    lines = [json.loads(line) | {"time": 0.0, "time/step": 7.0} for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = analyse(gather(study, layout, SETTINGS), SETTINGS.report).model_dump()
    assert {key for key in before if before[key] != after[key]} == {"cost", "resumes"}


def test_a_partial_report_is_marked_and_lists_what_is_absent(copied: tuple[Study, Layout]):
    study, layout = copied
    for seed in (1, 2, 3):
        layout.train_sentinel(f"runs/dr_grpo/seed{seed}").unlink()
    for seed in (2, 3):
        layout.scores(f"runs/format_only/seed{seed}", "test").unlink()
    content = analyse(gather(study, layout, SETTINGS, partial=True), SETTINGS.report)
    assert not content.complete
    assert len(content.missing) == 5
    assert {one.arm: one.outcome for one in content.verdicts} == {
        "accuracy_only": "better",
        "format_only": "seed variance not measured",
        "dr_grpo": "missing",
    }
    row = content.tables["main"].rows[-1]
    assert (row.row, row.cells[0].mean, row.cells[0].num_seeds) == ("dr_grpo", None, 0)


def test_nothing_finished_still_makes_a_partial_report(copied: tuple[Study, Layout]):
    study, layout = copied
    for path in layout.root.rglob("*.scores.parquet"):
        path.unlink()
    content = analyse(gather(study, layout, SETTINGS, partial=True), SETTINGS.report)
    assert {one.outcome for one in (*content.verdicts, *content.gains)} == {"missing"}
    assert content.curves == ()
    assert all(shown == () for shown in (example.completions for example in content.examples))
