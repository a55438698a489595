"""Prompts that leave vLLM no room are refused before any training, the warm start's too. (No vLLM is opened.)"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlassay.config.explain import StudyError
from rlassay.models.vllm_engine import own_limit
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import only
from tests.training.short_run import fresh_layout, load_short

ROOMY = {"kind": "vllm", "max_model_length": 1000}
TIGHT = {"kind": "vllm", "max_model_length": 20}


@pytest.mark.parametrize(
    ("engines", "problem"),
    [
        ({"rl__engine": TIGHT, "evaluation__engine": ROOMY}, r"rl\.engine: vLLM .* of the split 'train' leave"),
        ({"rl__engine": ROOMY, "evaluation__engine": TIGHT}, r"evaluation\.engine: vLLM .* of the split 'test' leave"),
        ({"evaluation__engine": TIGHT}, r"evaluation\.engine: vLLM .* of the split 'test' leave"),
    ],
)
def test_a_warm_start_is_refused_where_a_run_after_it_would_be_cut(
    engines: dict[str, Any], problem: str, tmp_path: Path
):
    study, layout = load_short(tmp_path, **engines), fresh_layout(tmp_path / "results")
    policy = only(study, "sft")
    with pytest.raises(StudyError, match=problem):
        run_sft(study, layout, policy)
    assert not layout.metrics(policy.folder).exists()


def test_a_warm_start_whose_runs_have_room_is_trained(tmp_path: Path):
    study = load_short(tmp_path, rl__engine=ROOMY, evaluation__engine={"kind": "vllm"})
    layout, policy = fresh_layout(tmp_path / "results"), only(study, "sft")
    run_sft(study, layout, policy)
    assert layout.metrics(policy.folder).exists()


def config_of(**text: Any) -> Any:
    return SimpleNamespace(get_text_config=lambda: SimpleNamespace(to_dict=lambda: text))


def test_a_models_own_limit_is_unknown_where_it_scales_its_positions():
    assert own_limit(config_of(max_position_embeddings=512, rope_parameters={"rope_type": "default"})) == 512
    assert own_limit(config_of(max_position_embeddings=512)) == 512
    assert own_limit(config_of(max_position_embeddings=512, rope_parameters={"rope_type": "yarn", "factor": 4})) is None
    assert own_limit(config_of()) is None
