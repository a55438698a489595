"""vLLM reads the clips of Qwen3-VL as transformers does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlassay.config.engine import VLLMEngine
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.by_vllm import VLLMDecoder
from rlassay.evaluation.decoding import Decoding
from rlassay.training.batch import clips_of, images_of
from tests.engines.test_video import video_trainer
from tests.engines.vllm_process import needs_torchvision, needs_vllm, vllm_process
from tests.models.hubs import hub

pytestmark = [needs_vllm, needs_torchvision, pytest.mark.filterwarnings("ignore")]

GREEDY = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=5, seed=0)


@pytest.fixture(autouse=True)
def process() -> Iterator[pytest.MonkeyPatch]:
    with vllm_process() as patch:
        yield patch


def greedily(trainer: Any) -> tuple[list[Any], list[list[Any]], list[list[int]]]:
    """Each prompt of a trainer, its images and clips, and the completion of transformers."""
    prompts = [row["prompt"] for row in trainer.train_dataset]
    media = [[*images_of(prompt), *clips_of(prompt)] for prompt in prompts]
    by_hand = decode_batch(trainer.model.eval(), trainer.processing_class, prompts, media, GREEDY)
    return prompts, media, [each.ids for each in by_hand]


@pytest.mark.parametrize("kind", ["Qwen3-VL", "Qwen2.5-VL"])
def test_the_evaluation_decodes_clips_as_by_transformers_or_refuses_them(kind: str, tmp_path: Path):
    trainer = video_trainer(tmp_path, kind)
    prompts, media, expected = greedily(trainer)
    by_vllm = VLLMDecoder(
        trainer.model,
        trainer.processing_class,
        section=hub(tmp_path / "model"),
        weights=tmp_path / "model",
        copy=tmp_path / "copy",
        engine=VLLMEngine(kind="vllm", max_model_length=256),
        batch_size=8,
        on_cpu=True,
    )
    if kind == "Qwen2.5-VL":
        with pytest.raises(ValueError, match="by the video input of qwen3_vl alone, and the model is qwen2_5_vl"):
            by_vllm(prompts, media, GREEDY)
        return
    assert [each.ids for each in by_vllm(prompts, media, GREEDY)] == expected
