"""Tables of the report in LaTeX, with the package booktabs: each number with its interval."""

import re
from collections.abc import Iterator, Sequence

from rlassay.report.content import Comparison, Content
from rlassay.report.findings.sentences import level, primary_of
from rlassay.report.numbers import Estimate, PairedDifference, Table, Unit
from rlassay.report.typeset import DASH, EFFECT_UNIT, LEVEL_UNIT, ONE_SEED, OUTCOME_MARKS, number, probability, size

SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "–": "--",
    "×": "$\\times$",
    "†": "$^\\dagger$",
}
"""Character -> how LaTeX writes it."""
ARROWS = {"higher": " $\\uparrow$", "lower": " $\\downarrow$", "neither": ""}


def latex_tables(content: Content) -> dict[str, str]:
    """Table name -> a `table` environment with caption and label, as `.tex` text."""
    found = {name: _levels(content, table) for name, table in content.tables.items()}
    if content.verdicts:
        labels = {arm.name: arm.label for arm in content.arms}
        reference = labels[content.study.baseline]
        found["verdicts"] = _comparisons(content, content.verdicts, f"Difference from {reference}", "verdicts")
    found["gains"] = _comparisons(content, content.gains, "Difference from the policy before RL", "gains")
    return found


def escape(text: str) -> str:
    """Escape text so that LaTeX shows it unchanged, on one line."""
    flat = re.sub(r"\s+", " ", re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "", text))
    return "".join(SPECIAL.get(char, char) for char in flat)


def _levels(content: Content, table: Table) -> str:
    header = ["policy", "$n$"]
    for column in table.columns:
        unit = LEVEL_UNIT[column.unit]
        header.append(escape(f"{column.title}, {unit}" if unit else column.title) + ARROWS[column.better])
    rows: list[list[str]] = []
    first_arm = next((place for place, row in enumerate(table.rows) if row.kind == "arm"), 0)
    for row in table.rows:
        cells = [_cell(cell, column.unit) for cell, column in zip(row.cells, table.columns, strict=True)]
        sizes = [size(cell) for cell in row.cells if cell.mean is not None]
        rows.append([escape(row.label), escape(sizes[0] if sizes else DASH), *cells])
    intervals = f"Means with {level(content)} intervals over seeds and prompts; $n$: seeds $\\times$ prompts."
    note = f"{escape(table.title)}. {intervals}"
    if any(cell.covers == "items" for row in table.rows for cell in row.cells):
        note += " $^\\dagger$: one seed, so the interval covers the prompts only."
    return _table(table.name, escape_percent(note), header, rows, first_arm)


def _comparisons(content: Content, found: Sequence[Comparison], title: str, name: str) -> str:
    column = primary_of(content)
    unit = EFFECT_UNIT[column.unit]
    header = ["arm", "$n$", escape(f"difference, {unit}" if unit else "difference"), "Holm $p$", "verdict"]
    labels = {arm.name: arm.label for arm in content.arms}
    rows = [[escape(labels[one.arm]), *_difference(one, column.unit)] for one in found]
    note = (
        f"{escape(title)} in {escape(column.title)}, with {level(content)} intervals over seeds and prompts; "
        "$p$ is corrected by Holm's method over the declared comparisons."
    )
    return _table(name, escape_percent(note), header, rows, 0)


def _difference(one: Comparison, unit: Unit) -> Iterator[str]:
    found = one.difference
    if found is None:
        yield from ("--", "--", "--")
    else:
        yield escape(size(found))
        yield _number(found.effect, found, unit, signed=True)
        yield "--" if found.p_holm is None else escape(probability(found.p_holm).removeprefix("= "))
    yield OUTCOME_MARKS[one.outcome][1]


def _cell(estimate: Estimate, unit: Unit) -> str:
    return _number(estimate.mean, estimate, unit)


def _number(middle: float | None, found: Estimate | PairedDifference, unit: Unit, signed: bool = False) -> str:
    text = escape(number(middle, unit, signed))
    if middle is None or found.low is None or found.high is None:
        return text
    ends = ", ".join(escape(number(end, unit, signed)) for end in (found.low, found.high))
    mark = escape(ONE_SEED) if found.covers == "items" else ""
    return f"{text} {{\\scriptsize [{ends}]{mark}}}"


def escape_percent(note: str) -> str:
    """Escape the per cent signs of one of our captions, which may contain mathematics."""
    return re.sub(r"(?<!\\)%", r"\\%", note)


def _table(name: str, caption: str, header: list[str], rows: list[list[str]], rule_before: int) -> str:
    lines = [" & ".join(row) + " \\\\" for row in rows]
    if rule_before:
        lines.insert(rule_before, "\\midrule")
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            "\\small",
            f"\\caption{{{caption}}}",
            f"\\label{{tab:{name.replace('_', '-')}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "\\toprule",
            " & ".join(header) + " \\\\",
            "\\midrule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )
