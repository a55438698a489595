"""Figures: positions, colours and texts, read from the SVG."""

import re
from functools import cache
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from rlassay.report.figures import ROWS_WIDTH, assign_marks, draw_figures, write_figures
from rlassay.report.figures_style import MARKERS, SOFT, SVG, standalone
from tests.report.fake_content import fake_content, fake_partial
from tests.report.hostile_content import hostile_content

NUMBER = r"-?\d+(?:\.\d+)?"


def drawn(content):
    marks = assign_marks(content)
    return {drawing.name: drawing for drawing in draw_figures(content, marks)}, marks


@cache
def fake():
    """Figures of the fake content, drawn once."""
    return drawn(fake_content())


def texts(drawing):
    return [element.text or "" for element in ElementTree.fromstring(drawing.svg).iter(f"{{{SVG}}}text")]


def strokes(drawing, color, width):
    """End points (x0, x1) of the straight lines of one colour and width, from top to bottom."""
    found = []
    for path in ElementTree.fromstring(drawing.svg).iter(f"{{{SVG}}}path"):
        if path.get("stroke") == color and path.get("stroke-width") == width:
            numbers = [float(number) for number in re.findall(NUMBER, path.attrib["d"])]
            found.append((numbers[1], numbers[0], numbers[2]))
    return [(left, right) for _, left, right in sorted(found)]


def test_every_part_of_the_study_is_drawn():
    drawings, _ = fake()
    assert list(drawings) == [
        "levels",
        "pass_at_k",
        "forest_baseline",
        "forest_start",
        "legend",
        "curve_reward",
        "curve_completions_mean_length",
        "curve_entropy",
        "reward_choice_accuracy",
        "reward_soft_overlong",
    ]


def test_forest_bars_span_the_intervals_on_one_scale():
    drawings, marks = fake()
    forest = drawings["forest_baseline"]
    bars = [strokes(forest, marks[arm].color, "2.6")[0] for arm in ("accuracy_only", "format_only", "dr_grpo")]
    # The fake's intervals, in points, and zero at the short grey strokes.
    zero = strokes(forest, SOFT, "1.5")[0][0]
    scale = (bars[0][1] - zero) / 13.0
    assert scale > 0
    expected = [(3.2, 13.0), (-18.0, -6.0), (-3.0, 3.8)]
    for bar, ends in zip(bars, expected, strict=True):
        assert bar == pytest.approx([zero + scale * end for end in ends], abs=0.05)


def test_no_number_of_an_axis_is_cut_at_the_edge_of_a_figure():
    """Among many ranges some have a tick close to an edge; 6 pixels a character is a wide font."""
    content = fake_content()
    shown = 0
    for place in range(40):
        verdicts = tuple(_moved(one, 0.013 * place) for one in content.verdicts)
        forest = drawn(content.model_copy(update={"verdicts": verdicts}))[0]["forest_baseline"]
        for element in ElementTree.fromstring(forest.svg).iter(f"{{{SVG}}}text"):
            if element.get("text-anchor") == "middle" and re.fullmatch("[−0-9.]+", element.text or ""):
                half = 3 * len(element.text or "")
                assert half <= float(element.attrib["x"]) <= ROWS_WIDTH - half
                shown += 1
    assert shown > 3 * 40


def _moved(one, by):
    """A verdict with its interval moved down."""
    low, high = one.difference.low - by, one.difference.high - by
    difference = one.difference.model_copy(update={"low": low, "high": high, "effect": (low + high) / 2})
    return one.model_copy(update={"difference": difference, "by_seed": ()})


def test_forest_shows_the_numbers_and_the_better_side():
    drawings, _ = fake()
    words = texts(drawings["forest_baseline"])
    assert "Difference from arm 'accuracy + format'" in words
    assert "−12.0  [−18.0 to −6.0]" in words
    assert "difference, points · further right is better" in words
    assert "accuracy only +8.1 [+3.2 to +13.0]" in " ".join(drawings["forest_baseline"].alt.split())


def test_markers_are_filled_for_verdicts_only():
    drawings, marks = fake()
    svg = drawings["forest_baseline"].svg
    faces = {arm: f'fill="{marks[arm].color}"' in svg for arm in ("accuracy_only", "format_only", "dr_grpo")}
    assert faces == {"accuracy_only": True, "format_only": True, "dr_grpo": False}


def test_a_long_name_gets_a_line_of_its_own_and_is_not_cut():
    content = fake_content()
    name = "accuracy, format and brevity, normalized"
    arms = tuple(arm.model_copy(update={"label": name}) if arm.name == "dr_grpo" else arm for arm in content.arms)
    short, long = (drawn(one)[0]["forest_baseline"] for one in (content, content.model_copy(update={"arms": arms})))
    assert name in texts(long)
    heights = [float(ElementTree.fromstring(one.svg).attrib["height"]) for one in (short, long)]
    assert heights[1] - heights[0] == 3 * 14


def test_rewards_have_the_words_of_the_tables():
    drawings, _ = fake()
    assert "accuracy" in texts(drawings["reward_choice_accuracy"])
    assert drawings["reward_soft_overlong"].alt.startswith("soft overlong penalty, raw value")


def test_logged_only_rewards_are_drawn_open():
    drawings, marks = fake()
    color = f'fill="{marks["base"].color}"'
    assert color in drawings["reward_choice_accuracy"].svg
    assert color not in drawings["reward_soft_overlong"].svg
    assert any("logged only" in text for text in texts(drawings["reward_soft_overlong"]))


def test_pass_at_k_has_a_log_axis_and_leaves_other_sets_out():
    content = fake_content()
    table = content.tables["pass_at_k"]
    other = table.columns[0].model_copy(update={"set": "hard", "metric": "pass_at_16"})
    rows = tuple(row.model_copy(update={"cells": (*row.cells, row.cells[0])}) for row in table.rows)
    two_sets = table.model_copy(update={"columns": (*table.columns, other), "rows": rows})
    drawings, marks = drawn(content.model_copy(update={"tables": content.tables | {"pass_at_k": two_sets}}))
    drawing = drawings["pass_at_k"]
    # k = 1, 4, 8 at 0, 2 and 3 doublings
    line = re.search(rf'd="M ([^"]*)"[^>]*stroke="{marks["base"].color}" stroke-width="1.8"', drawing.svg).group(1)
    one, four, eight = (float(point.split()[0]) for point in line.split("L"))
    assert (four - one) / (eight - one) == pytest.approx(2 / 3, abs=0.001)
    assert "accuracy + format from 40.0 to 90.0" in drawing.alt
    assert "16" not in texts(drawing)


def test_missing_results_are_named_and_have_no_bar():
    drawings, marks = drawn(fake_partial())
    assert "no results yet" in texts(drawings["forest_baseline"])
    assert strokes(drawings["forest_baseline"], marks["dr_grpo"].color, "2.6") == []


def test_a_curve_that_varies_by_rounding_alone_has_ticks_around_its_value():
    content = fake_content()
    first, *others = content.curves
    lines = tuple(
        one.model_copy(
            update={name: tuple(1 + 1e-6 * (step % 2) for step in one.steps) for name in ("mean", "low", "high")}
        )
        for one in first.series
    )
    drawings, _ = drawn(content.model_copy(update={"curves": (first.model_copy(update={"series": lines}), *others)}))
    ticks = {text for text in texts(drawings[f"curve_{first.metric}"]) if text.replace(".", "").isdigit()}
    assert "0.96" in ticks
    assert not [text for text in texts(drawings[f"curve_{first.metric}"]) if "1e" in text]


def test_curves_gap_at_nulls_and_thin_long_runs():
    content = fake_content()
    curve = content.curves[0]
    steps = tuple(range(1, 2001))
    values = tuple(None if step % 100 == 0 else step / 2000 for step in steps)
    nothing = (None,) * len(steps)
    long = curve.series[0].model_copy(update={"steps": steps, "mean": values, "low": nothing, "high": nothing})
    drawings, _ = drawn(
        content.model_copy(update={"curves": (curve.model_copy(update={"series": (long,)}),), "rewards": ()})
    )
    line = max(re.findall(r' d="([^"]*)"', drawings["curve_reward"].svg), key=len)
    assert line.count("L") <= 200
    assert "accuracy + format from 0.001 to 1.000" in drawings["curve_reward"].alt


def test_a_curve_without_any_value_is_an_empty_panel():
    content = fake_content()
    curve = content.curves[0]
    empty = curve.series[0].model_copy(update={"steps": (1,), "mean": (None,), "low": (None,), "high": (None,)})
    drawings, _ = drawn(content.model_copy(update={"curves": (curve.model_copy(update={"series": (empty,)}),)}))
    assert "step" in texts(drawings["curve_reward"])


def test_figures_are_plain_svg_with_ids_of_their_own():
    drawings, _ = drawn(hostile_content())
    ids = []
    for drawing in drawings.values():
        root = ElementTree.fromstring(drawing.svg)
        assert {element.tag.removeprefix(f"{{{SVG}}}") for element in root.iter()} <= {
            *("svg", "g", "defs", "path", "use", "text", "clipPath", "rect")
        }
        for element in root.iter():
            assert not {"style", "onload", "href"} & set(element.attrib)
            assert element.get("{http://www.w3.org/1999/xlink}href", "#").startswith("#")
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert root.get("role") == "img"
        assert root.get("aria-label")
    assert len(ids) == len(set(ids))


def test_shapes_take_their_colour_where_they_are_used_so_that_a_dark_page_can_change_it():
    # Rules of a page such as `svg [stroke="..."]` do not reach the copies that `use` makes of a shape.
    for drawing in draw_figures(fake_content(), assign_marks(fake_content())):
        root = ElementTree.fromstring(drawing.svg)
        shapes = list(root.iterfind(f".//{{{SVG}}}defs/{{{SVG}}}path"))
        assert not any({"stroke", "fill"} & {*shape.attrib} for shape in shapes), drawing.name
        assert all({"stroke", "fill"} & {*used.attrib} for used in root.iter(f"{{{SVG}}}use")), drawing.name


def test_references_inside_a_figure_find_their_target():
    drawings, _ = fake()
    for drawing in drawings.values():
        ids = set(re.findall(r' id="([^"]+)"', drawing.svg))
        assert set(re.findall(r'href="#([^"]+)"', drawing.svg)) <= ids
        assert set(re.findall(r"url\(#([^)]+)\)", drawing.svg)) <= ids


def test_files_are_self_contained_and_replace_those_of_an_earlier_report(tmp_path):
    drawings, marks = fake()
    (tmp_path / "curve_of_last_week.svg").write_text("old")
    write_figures(drawings.values(), marks, tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(drawings)
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8")
        ElementTree.fromstring(text.encode())
        assert "@media (prefers-color-scheme: dark)" in text


def test_same_content_gives_the_same_bytes():
    first, marks = fake()
    second, _ = drawn(fake_content())
    assert {name: drawing.svg for name, drawing in first.items()} == {name: d.svg for name, d in second.items()}
    color = [mark.color for mark in marks.values()]
    assert standalone(first["levels"], color) == standalone(second["levels"], list(reversed(color)))


def test_the_users_own_matplotlib_settings_change_nothing():
    usual, _ = fake()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        unusual, _ = drawn(fake_content())
    assert usual["levels"].svg == unusual["levels"].svg


def test_every_marker_has_a_path_for_the_legend():
    assert all(re.fullmatch(r"[MLHVAaZz0-9 .\-hvl]+", path) for path in MARKERS.values())
