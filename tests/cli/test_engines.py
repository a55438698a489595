from pathlib import Path
from typing import Any

import pytest

from rlassay.cli import engines
from rlassay.cli.engines import require_engines
from rlassay.config import StudyError
from tests.config.studies import study
from tests.models.hubs import text_model

VLLM: dict[str, Any] = {"evaluation__engine": {"kind": "vllm"}}


def test_a_study_without_vllm_needs_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "is_installed", lambda: False)

    require_engines(study())


def test_an_engine_that_is_not_installed_is_refused_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "is_installed", lambda: False)

    with pytest.raises(StudyError, match=r"vLLM is not installed in .*; run `make .venv-vllm` and give `make` the op"):
        require_engines(study(**VLLM, rl__engine={"kind": "vllm"}))


def test_an_architecture_that_vllm_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    name = str(text_model(tmp_path / "hub"))
    chosen = study(**VLLM, model={"kind": "hub", "name": name, "dtype": "float32"})
    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "set_environment", lambda *, on_cpu: None)
    monkeypatch.setattr(engines, "unknown_architectures", lambda names: [])
    require_engines(chosen)
    monkeypatch.setattr(engines, "unknown_architectures", list)

    with pytest.raises(StudyError, match=rf"model.name: {name} is a \w+ForCausalLM, which vLLM does not have"):
        require_engines(chosen)
