"""Names of files below `results/` are spelled in layout.py alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/rlassay"
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file != PACKAGE / "layout.py"]
NAMES = re.compile(
    r"(?:run|train|sft|data|report)\.json|metrics\.jsonl|manifest\.json|index\.html|report\.md"
    r"|.*\.(?:parquet|safetensors|journal)|.*\.(?:completions|partial)\.jsonl|\*\.jsonl"
    r"|COMPLETE|step\*?|checkpoint-\*?|checkpoints|weights|state|rollouts"
    r"|(?:runs|sft|models)/\S*|/seed|partial_report|\.mlflow"
)
"""Whole literals, or whole fixed parts of an f-string, that name a file, a folder or a part of one."""
WORDS = {"step", "state", "weights", "rollouts", "checkpoints"}
"""Also words of other meanings; they count only where a path is joined."""


def spelled(tree: ast.Module) -> Iterator[str]:
    """Literals that name a file of the layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if NAMES.fullmatch(node.value) and node.value not in WORDS:
                yield node.value
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            text = node.right.value if isinstance(node.right, ast.Constant) else None
            if text in WORDS:
                yield str(text)


@pytest.mark.parametrize(
    "source",
    [
        'path = folder / "run.json"',
        'path = folder / "state"',
        'files = folder.glob("step*.parquet")',
        'path = folder / f"{split}.completions.jsonl"',
        'policy = f"runs/{arm}/seed{seed}"',
        'seed = policy.removesuffix(f"/seed{number}")',
    ],
)
def test_a_spelled_path_is_found(source: str):
    assert list(spelled(ast.parse(source)))


@pytest.mark.parametrize("source", ['"""Writes run.json."""', 'row["step"]', 'print("see index.html")'])
def test_other_texts_are_not(source: str):
    assert list(spelled(ast.parse(source))) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_spells_no_path_of_the_results(file: Path):
    assert list(spelled(ast.parse(file.read_text()))) == [], "use rlassay.layout"
