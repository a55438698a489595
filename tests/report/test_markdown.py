"""report.md: the facts of the page; hostile text stays text."""

import re
from itertools import groupby

import pytest

from rlassay.report.page import code_block, code_span, escape, link, render_markdown, write_page
from tests.report.fake_content import collapses, fake_content, fake_partial
from tests.report.hostile_content import hostile_content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain (text), +8.1 [3.2]", "plain (text), +8.1 \\[3.2\\]"),
        ("a|b\nc", "a\\|b c"),
        ("<script>&amp;", "&lt;script\\>&amp;amp;"),
        ("*_`#", "\\*\\_\\`\\#"),
        ("12. not a list", "12\\. not a list"),
        ("- not a list", "\\- not a list"),
        ("9.5 is a number", "9.5 is a number"),
    ],
)
def test_escape(text, expected):
    assert escape(text) == expected


def test_content_cannot_close_a_code_fence():
    assert code_span("a`b") == "``a`b``"
    assert code_span("`") == "`` ` ``"
    assert code_span("a|b") == "`a\\|b`"
    assert code_span("a\\|b") == "a\\\\\\|b"  # no code span in a table can hold these two characters
    assert code_block("x\n````\ny") == "`````text\nx\n````\ny\n`````"
    assert link("../data/a b(1).png") == "../data/a%20b%281%29.png"


def test_it_has_the_facts_of_the_page():
    content = fake_content()
    text = render_markdown(content, [])
    for verdict, mark in zip(content.verdicts, "▲▼○", strict=True):
        assert f"- {mark} {escape(verdict.sentence)}\n" in text
    assert "| Untrained model | **30.0** (27.0 to 33.0†; 1 × 400) |" in text
    assert '| `rl.loss_type` | `"dapo"` | `"dapo"` | `"dapo"` | `"dr_grpo"` |\n' in text
    logged_only = (
        "| accuracy + format | soft overlong penalty (logged only) | 0 | **0.350** (0.320 to 0.380; 3 × 400) |"
    )
    assert logged_only in text
    assert "**SFT** ✗ wrong, 9 tokens\n\n```text\n<script>" in text
    assert "- B 3 ← gold\n" in text
    assert "| accuracy + format | 1 | 1 min 02 s | 92,000 | 800 | 0.900 | 0.500 | 0.010 |" in text
    for item in content.commands:
        assert f"```text\n{item.command}\n```" in text


def test_a_partial_report_says_what_is_missing():
    assert "- Dr. GRPO, seed 1: `runs/dr_grpo/seed1/train.json`, made by `snakemake" in render_markdown(
        fake_partial(), []
    )


def test_collapsed_runs_come_before_the_answer():
    content = fake_content()
    assert "collapsed" not in render_markdown(content, []).split("## Answer")[0]
    above = render_markdown(content.model_copy(update={"collapses": collapses()}), []).split("## Answer")[0]
    assert "**2 runs collapsed** and ended early." in above
    assert "- `runs/base/seed2`, step 9 of 40: kl was nan, above max\\_kl\n" in above


def test_without_options_there_is_nothing_about_parsing():
    content = fake_content()
    tables = {name: table for name, table in content.tables.items() if name != "parsing"}
    assert "## Parse failures" in render_markdown(content, [])
    assert "## Parse failures" not in render_markdown(content.model_copy(update={"tables": tables}), [])


def test_every_linked_figure_was_written(tmp_path):
    write_page(fake_content(), tmp_path)
    linked = re.findall(r"\]\((figures/[^)]+)\)", (tmp_path / "report.md").read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(f"figures/{path.name}" for path in (tmp_path / "figures").glob("*.svg"))


def test_tables_keep_their_shape_and_text_stays_text():
    lines = _outside_code_blocks(render_markdown(hostile_content(), []))
    tables = [list(group) for is_row, group in groupby(lines, lambda line: line.startswith("|")) if is_row]
    assert len(tables) == 11  # four of results, design, two of rewards, credit, cost, policies, data
    for table in tables:
        assert re.fullmatch(r"[|:-]+", table[1])
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {table[1].count("|")}
    for line in lines:
        prose = re.sub(r"(`+).*?\1", "", line)
        assert "<" not in prose
        assert not re.search(r"(?<!\\)\]\(http", prose)


def _outside_code_blocks(text):
    lines, fence = [], None
    for line in text.splitlines():
        opened = re.match(r"`{3,}", line)
        if fence is None and opened:
            fence = opened.group()
        elif fence is None:
            lines.append(line)
        elif line == fence:
            fence = None
    assert fence is None
    return lines
