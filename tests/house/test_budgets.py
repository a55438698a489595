"""The maximum is budgeted, not the median; ruff holds branches (12) and arguments (6)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    file for folder in ("src", "tests", "workflow", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))
]
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 40
LINES_OF_RULES = 55


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, less those of the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0  # pyright: ignore[reportOptionalOperand]
    return function.end_lineno - function.lineno + 1 - docstring  # pyright: ignore[reportOptionalOperand]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_python_file_keeps_its_budgets(file: Path):
    text = file.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {function.name: lines_without_docstring(function) for function in functions}

    lines = len(text.splitlines())
    assert lines <= LINES_OF_A_FILE
    assert {name: lines for name, lines in long.items() if lines > LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize(
    "file", [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))], ids=lambda f: f.name
)
def test_the_rules_stay_thin(file: Path):
    text = file.read_text()
    lines = len(text.splitlines())
    assert lines <= LINES_OF_RULES
    assert "lambda" not in text
