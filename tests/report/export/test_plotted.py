"""The data behind the figures."""

from rlassay.report.export.plotted import plotted_rows
from rlassay.report.figures import assign_marks, draw_figures
from rlassay.report.run import build_content
from tests.report.conftest import SETTINGS
from tests.report.fake_content import fake_content


def test_every_figure_but_the_legend_has_its_data(results):
    for content in (fake_content(), build_content(results, SETTINGS.report)):
        drawn = {drawing.name for drawing in draw_figures(content, assign_marks(content))}
        assert drawn - set(plotted_rows(content)) == {"legend"}
        assert set(plotted_rows(content)) <= drawn


def test_the_rows_are_the_marks_of_the_figure():
    rows = plotted_rows(fake_content())
    assert rows["forest_baseline"][1] == {
        "arm": "format_only",
        "reference": "base",
        "outcome": "worse",
        "mean": -0.12,
        "low": -0.18,
        "high": -0.06,
        "num_seeds": 3,
        "num_items": 400,
    }
    assert [row["k"] for row in rows["pass_at_k"][:3]] == [1, 4, 8]
    assert len(rows["curve_reward"]) == 4 * 30
    assert [row["before"] for row in rows["reward_soft_overlong"]] == [0.35] * 4
