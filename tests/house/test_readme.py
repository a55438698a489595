"""The README is true: each path in its file tree, each path that it names and each of its links exists."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TREE_LINE = re.compile(r"^(?P<indent>(?:│   |    )*)(?:├── |└── )(?P<name>\S+)")
NAMED = re.compile(r"`((?:config|profiles|src|tests|benchmarks|workflow)/[^`\s<>*]*)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def expand(path: str) -> Iterator[str]:
    """The paths behind `{a,b}` parts."""
    parts = re.split(r"\{([^}]*)\}", path)
    choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
    yield from ("".join(choice) for choice in product(*choices))


def tree_paths(text: str) -> Iterator[str]:
    """The paths of a tree drawn with ├── and └──; those with a `<placeholder>` are left out."""
    stack: list[str] = []
    for line in text.splitlines():
        found = TREE_LINE.match(line)
        if found:
            stack[len(found["indent"]) // 4 :] = [found["name"].rstrip("/")]
            if not any(mark in part for part in stack for mark in "<…"):
                yield from expand("/".join(stack))


def test_the_tree_is_read_as_it_is_drawn():
    drawn = "├── a/    words\n│   ├── {b,c}.py\n│   └── <any>/\n│       └── d\n└── e/\n    └── f.txt\n"

    assert list(tree_paths(drawn)) == ["a", "a/b.py", "a/c.py", "e", "e/f.txt"]


def test_every_path_of_the_file_tree_exists():
    paths = list(tree_paths(README.read_text()))

    assert "src/rlassay" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_path_that_the_text_names_exists():
    text = README.read_text()
    paths = [path for named in NAMED.findall(text) for path in expand(named)] + LINK.findall(text)

    assert [path for path in paths if not (ROOT / path).exists()] == []
