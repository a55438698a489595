"""The environment is built once, whole, and again when its files change."""

import importlib.util
import threading
from pathlib import Path

import pytest

from tests.workflow.builder import Builder

SOURCE = Path(__file__).parents[2] / "workflow/build_venv.py"


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("[project]\n")
    Path("constraints.txt").write_text("numpy==2.4.6\n")
    spec = importlib.util.spec_from_file_location("build_venv", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder = Builder(module, Path(".venv/bin"))
    monkeypatch.setattr(module, "run", builder.run)
    return builder


def test_a_missing_environment_is_built_and_a_finished_one_left_alone(builder: Builder):
    assert builder.build() == ["venv", "pip"]
    assert builder.build() == []


def test_changed_constraints_install_again_into_the_same_environment(builder: Builder):
    builder.build()
    Path("constraints.txt").write_text("numpy==2.4.7\n")

    assert builder.build() == ["pip"]


def test_an_interrupted_build_starts_over(builder: Builder):
    builder.fail_at = "pip"
    with pytest.raises(SystemExit):
        builder.build()
    rest = Path(".venv/bin/rest-of-a-broken-install")
    rest.touch()
    builder.fail_at = None

    assert builder.build() == ["venv", "pip"]
    assert not rest.exists()


def test_an_interrupted_renewal_starts_over(builder: Builder):
    builder.build()
    Path("constraints.txt").write_text("numpy==2.4.7\n")
    builder.fail_at = "pip"
    with pytest.raises(SystemExit):
        builder.build()
    builder.fail_at = None

    assert builder.build() == ["venv", "pip"]


def test_two_builds_at_once_build_once(builder: Builder):
    threads = [threading.Thread(target=builder.module.main) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert builder.commands == ["venv", "pip"]


def test_an_old_python_is_told_what_to_do(builder: Builder):
    builder.module.NEEDED = (99, 0)  # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer.*make PYTHON="):
        builder.module.main()
    assert builder.commands == []
