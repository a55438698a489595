"""A wheel built from the tree holds the whole package and starts in an environment that has nothing else of it."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without network: setuptools is a development dependency."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ["pyproject.toml", "README.md", "LICENSE", *tracked.splitlines()]:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "dist",
        ".",
    ]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    return next((folder / "dist").glob("rlassay-*.whl"))


def test_the_wheel_holds_every_module_template_and_the_license(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())

    package = ROOT / "src"
    expected = {
        str(file.relative_to(package))
        for file in package.rglob("*")
        if file.suffix in (".py", ".jinja", ".css", ".js", ".yaml")
    }
    assert expected - names == set()
    assert "rlassay/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies come from this environment's folder. Python reads no .pth files in a folder that a .pth adds,
    # so that the editable installation of the tree stays out.
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    done = subprocess.run(
        [tmp_path / "env/bin/rlassay", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where = [python, "-c", "import rlassay; print(rlassay.__file__)"]

    assert done.stdout.startswith("usage: rlassay")
    assert str(site) in subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
