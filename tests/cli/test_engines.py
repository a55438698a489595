import json
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


def test_heads_that_the_processes_of_one_copy_cannot_divide_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "set_environment", lambda *, on_cpu: None)
    monkeypatch.setattr(engines, "unknown_architectures", lambda names: [])
    about = {"architectures": ["X"], "text_config": {"num_attention_heads": 6}, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(about), encoding="utf-8")
    models = {4: {"kind": "tiny_lm", "width": 128}, 6: {"kind": "hub", "name": str(tmp_path)}}
    for heads, model in models.items():
        for size in (2, 4):
            engine = {"rl__engine": {"kind": "vllm", "tensor_parallel_size": size}}
            chosen = study(**engine, model=model, processes=4)
            if heads % size == 0:
                require_engines(chosen)
                continue
            with pytest.raises(
                StudyError, match=r"rl\.engine\.tensor_parallel_size: 4 does not divide the 6 attention"
            ):
                require_engines(chosen)


def test_clips_of_a_model_that_vllm_reads_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "set_environment", lambda *, on_cpu: None)
    monkeypatch.setattr(engines, "unknown_architectures", lambda names: [])
    for kind in ("qwen3_vl", "qwen2_5_vl"):
        (tmp_path / kind).mkdir()
        about = {"model_type": kind, "architectures": ["X"]}
        (tmp_path / kind / "config.json").write_text(json.dumps(about), encoding="utf-8")
    video, frames = (
        {kind: study(**VLLM, model=shown(tmp_path / kind, show)) for kind in ("qwen3_vl", "qwen2_5_vl")}
        for show in ("video", "frames")
    )
    for each in (video["qwen3_vl"], *frames.values()):
        require_engines(each)

    with pytest.raises(StudyError, match=r"clips.show: video, but vLLM takes clips .* and the model is qwen2_5_vl"):
        require_engines(video["qwen2_5_vl"])


def shown(folder: Path, show: str) -> dict[str, Any]:
    return {"kind": "hub", "name": str(folder), "dtype": "float32", "clips": {"show": show}}


def test_a_model_on_the_hub_is_refused_by_its_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "is_installed", lambda: True)
    monkeypatch.setattr(engines, "set_environment", lambda *, on_cpu: None)
    monkeypatch.setattr(engines, "unknown_architectures", lambda names: [])
    # The hub's own cache, as a download of this file leaves it.
    config = tmp_path / "models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/0123/config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"model_type": "qwen2_5_vl", "architectures": ["X"]}), encoding="utf-8")
    main = config.parents[2] / "refs/main"
    main.parent.mkdir()
    main.write_text("0123")
    require_engines(study(**VLLM, model=shown(Path("Qwen/unknown"), "video")))

    with pytest.raises(StudyError, match=r"clips.show: video, but vLLM takes clips .* and the model is qwen2_5_vl"):
        require_engines(study(**VLLM, model=shown(Path("Qwen/Qwen2.5-VL-3B-Instruct"), "video")))
