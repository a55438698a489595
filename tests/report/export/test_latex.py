"""LaTeX tables: numbers with their intervals, characters that LaTeX shows as written."""

import re

import pytest

from rlassay.report.export.latex import escape, latex_tables
from tests.report.fake_content import fake_content, fake_partial
from tests.report.hostile_content import hostile_content


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("accuracy + format", "accuracy + format"),
        ("50 % of a_b & c", r"50 \% of a\_b \& c"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("−0.5 < 1 × 2", "$-$0.5 $<$ 1 $\\times$ 2"),
        ("two\nlines\x00", "two lines"),
    ],
)
def test_text_is_shown_as_it_is(text: str, written: str):
    assert escape(text) == written


def test_the_table_of_levels_has_every_cell_with_its_interval():
    text = latex_tables(fake_content())["main"]
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + 6
    # the untrained model: one seed; 0.30 with 0.27 to 0.33
    assert rows[1].split(" & ")[:3] == [
        "Untrained model",
        "1 $\\times$ 400",
        r"30.0 {\scriptsize [27.0, 33.0]$^\dagger$}",
    ]
    assert rows[3].split(" & ")[2] == r"40.0 {\scriptsize [37.0, 43.0]}"
    assert text.count("\\midrule") == 2  # below the heads, and above the first arm
    assert r"95\% intervals" in text


def test_the_table_of_verdicts_has_differences_p_values_and_words():
    text = latex_tables(fake_content())["verdicts"]
    assert r"accuracy only & 3 $\times$ 400 & +8.1 {\scriptsize [+3.2, +13.0]} & 0.020 & helps \\" in text
    assert r"format only & 3 $\times$ 400 & $-$12.0 {\scriptsize [$-$18.0, $-$6.0]} & 0.020 & hurts \\" in text
    assert "Difference from accuracy + format" in text


@pytest.mark.parametrize("content", [fake_content(), fake_partial(), hostile_content()])
def test_every_table_is_balanced(content):
    for text in latex_tables(content).values():
        body = re.sub(r"\\[\\{}%&$#_]", "", text)
        assert body.count("{") == body.count("}")
        assert body.count("$") % 2 == 0
        columns = re.search(r"\\begin{tabular}{(l\w+)}", text)[1]
        lines = [re.sub(r"\\&", "", line) for line in text.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") for line in lines} == {len(columns) - 1}


def test_a_title_is_shown_as_it_is():
    content = fake_content()
    titled = {name: table.model_copy(update={"title": "50 % of {a_b"}) for name, table in content.tables.items()}
    texts = latex_tables(content.model_copy(update={"tables": titled}))
    assert all(r"\caption{50 \% of \{a\_b. Means" in texts[name] for name in titled)
