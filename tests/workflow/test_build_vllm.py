"""The environment on top of the first one: built whole or not at all; torchvision imports in it without operators."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.builder import Builder

WORKFLOW = Path(__file__).parents[2] / "workflow"
PACKAGES = Path(".venv-vllm/lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.syspath_prepend(str(WORKFLOW))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("build_vllm")
    for path in module.INPUTS:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{path}\n")
    builder = Builder(module, PACKAGES)
    monkeypatch.setattr(module.build_venv, "run", builder.run)
    return builder


def test_it_sees_the_packages_of_the_first_environment_and_is_built_once(builder: Builder):
    assert builder.build() == ["venv", "pip"]
    assert builder.build() == []

    line = (PACKAGES / "zz_packages_of_venv.pth").read_text()
    assert line.startswith("import site; site.addsitedir('")
    assert (PACKAGES / "torchvision_on_cpu.pth").read_text() == "import torchvision_on_cpu\n"
    assert (PACKAGES / "torchvision_on_cpu.py").exists()


def test_other_packages_in_either_environment_build_it_again(builder: Builder):
    builder.build()
    rest = PACKAGES / "old"
    for path in ("workflow/vllm.txt", "constraints.txt"):
        rest.touch()
        Path(path).write_text("numpy==2.3.5\n")
        assert builder.build() == ["venv", "pip"]
        assert not rest.exists()


def test_a_failed_build_leaves_nothing_behind(builder: Builder):
    builder.fail_at = "pip"
    with pytest.raises(SystemExit):
        builder.build()

    assert not Path(".venv-vllm").exists()


@pytest.mark.parametrize(("hook", "compiled"), [(True, False), (True, True), (False, False)])
def test_schemas_are_defined_where_compiled_operators_are_missing(hook: bool, compiled: bool, tmp_path: Path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from . import extension\nfrom torchvision import _autograd_registrations\n")
    (package / "extension.py").write_text(f"def _has_ops():\n    return {compiled}\n")
    asks = "import torch\nassert hasattr(torch.ops.torchvision, 'nms')\nassert hasattr(torch.ops.torchvision, 'qnms')\n"
    (package / "_autograd_registrations.py").write_text(asks)
    script = f"import {'torchvision_on_cpu, ' if hook else ''}torchvision"

    result = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": f"{tmp_path}:{WORKFLOW}"}, capture_output=True, check=False
    )

    # Where the operators are compiled nothing is defined beside them; the fake package has none, and fails.
    assert (result.returncode == 0) == (hook and not compiled)
