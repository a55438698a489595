"""`environment.yml`, which conda reads on GPU machines and nothing here installs."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_it_has_every_extra_and_a_python_for_which_they_resolve_together():
    conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0::3]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (package,) = pip["pip"]
    assert set(package.removeprefix("-e .[").removesuffix("]").split(",")) == extras.keys()
    # For Python 3.12 vllm 0.31.0 needs numpy < 2.4 (mistral-common), the Slurm plug-in 2.8 needs numpy >= 2.4.5.
    found = re.fullmatch(r"python=3\.(\d+)", conda)
    assert found is not None
    assert int(found[1]) >= 13
