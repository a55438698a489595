"""vLLM reads the clips of Qwen3-VL as transformers does, in the evaluation and under TRL's trainer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.config.engine import VLLMEngine
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.by_vllm import VLLMDecoder
from rlassay.evaluation.decoding import Decoding
from rlassay.models.video_input import vllm_media
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.training.batch import clips_of, images_of
from rlassay.training.vllm import sampler
from rlassay.training.vllm.sampler import VLLMPlan
from tests.engines.test_video import SHOWN, SIZE, video_trainer
from tests.engines.vllm_process import needs_torchvision, needs_vllm, vllm_process
from tests.models.hubs import hub

pytestmark = [needs_vllm, needs_torchvision, pytest.mark.filterwarnings("ignore")]

GREEDY = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=5, seed=0)


@pytest.fixture(autouse=True)
def process() -> Iterator[pytest.MonkeyPatch]:
    with vllm_process() as patch:
        yield patch


def vllm_trainer(folder: Path, kind: str = "Qwen3-VL", **settings: Any) -> Any:
    options = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 256, "logging_steps": 1}
    return video_trainer(folder, kind, vllm=VLLMPlan(dtype="float32"), **options, **settings)


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


def test_a_colocated_vllm_decodes_the_clips_that_are_trained_on(tmp_path: Path):
    trainer = vllm_trainer(tmp_path)
    _, _, expected = greedily(trainer)
    trainer.model.train()
    trainer.vllm_generation.temperature = 0.0
    rows = [trainer.train_dataset[index] for index in range(len(SHOWN)) for _ in range(SIZE)]
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
    ids, mask = output["completion_ids"], output["completion_mask"].bool()
    own = [row[shown].tolist() for row, shown in zip(ids, mask, strict=True)]
    assert own == [each for each in expected for _ in range(SIZE)]


@pytest.mark.parametrize("blackened", [False, True])
def test_the_gap_to_the_trainer_tells_whether_vllm_saw_the_clips(
    blackened: bool, tmp_path: Path, process: pytest.MonkeyPatch
):
    def black(media: Any) -> Any:
        made = vllm_media(media)
        return made | {"video": [(frames * 0, about) for frames, about in made["video"]]}

    if blackened:
        process.setattr(sampler, "vllm_media", black)
    trainer = vllm_trainer(tmp_path, learning_rate=1e-2, num_iterations=1)
    trainer.train()
    gaps = [logged[SAMPLER_GAP] for logged in trainer.state.log_history if SAMPLER_GAP in logged]
    assert len(gaps) == 2
    assert min(gaps) > 0.1 if blackened else max(gaps) < 0.02


def test_a_colocated_vllm_refuses_clips_of_other_models(tmp_path: Path):
    trainer = vllm_trainer(tmp_path, "Qwen2.5-VL")
    with pytest.raises(ValueError, match="by the video input of qwen3_vl alone, and the model is qwen2_5_vl"):
        trainer.train()
