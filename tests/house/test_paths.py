"""The names of result files are spelled in `layout.py` alone."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / "src/rlassay/layout.py"
# Names of files below `results/`, written by the stages. `<split>.jsonl` is also the form of a user's own data.
RESULT_FILES = re.compile(
    r"step\*?[^\s]*\.parquet|scores\.parquet|completions\.jsonl|metrics\.jsonl|(run|sft|rl|data|report|progress)\.json$|index\.html"
    r"|checkpoint-|^(eval|rollouts|tokens|checkpoints|figures|tables)$"
)
FILES = [file for file in sorted((ROOT / "src").rglob("*.py")) if file != LAYOUT]


def texts(file: Path) -> list[str]:
    """String constants of a file that are operands of `/` or arguments of `glob`: paths."""
    found: list[ast.expr] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            found.append(node.right)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("glob", "rglob")
        ):
            found += node.args
    parts = [part for each in found for part in (each.values if isinstance(each, ast.JoinedStr) else [each])]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "src/rlassay")))
def test_paths_of_results_are_made_by_the_layout(file: Path):
    assert [text for text in texts(file) if RESULT_FILES.search(text)] == []


def test_the_rule_finds_what_it_looks_for():
    assert [text for text in texts(LAYOUT) if RESULT_FILES.search(text)] != []
