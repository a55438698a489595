"""Clips shown as frames: each pass of the model gets the pixels of its own clips, in their order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trl import GRPOConfig

from rlassay.config.model import ClipView
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.decoding import Decoding
from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat
from rlassay.models.tiny import build_tiny_vlm
from rlassay.records import Media, PromptRow
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training import CreditGRPOTrainer
from rlassay.training.batch import scored_by_trl
from rlassay.training.sft import sft_dataset
from tests.contract.clip_step import wait_for_all
from tests.models.hubs import SMALLEST, TEXTS
from tests.training.sampled_steps import sampled_steps
from tests.training.tiny_vlm import dataset_of, varied_vlm

SIZE = 2
MEDIA = (("video", 3), ("video", 2), ("image", 1), ("both", 4))
"""For each prompt the kind of its media, and their number of images."""


def write_rows(folder: Path) -> list[PromptRow]:
    """Prompts about clips of other lengths, an image, and both; every frame has a grey level of its own."""
    return [_row(folder, index, *shown) for index, shown in enumerate(MEDIA)]


def grey_level(prompt: int, frame: int) -> int:
    return 40 * prompt + 8 * frame + 10


def _row(folder: Path, prompt: int, kind: str, count: int) -> PromptRow:
    media: list[Media] = []
    levels = [grey_level(prompt, frame) for frame in range(count)]
    if kind in ("image", "both"):
        Image.new("RGB", (16, 16), (levels[0],) * 3).save(folder / f"{prompt}.png")
        media.append(Media(path=f"{prompt}.png"))
    if clip := levels[len(media) :]:
        strip = np.concatenate([np.full((16, 16, 3), level, np.uint8) for level in clip], axis=1)
        Image.fromarray(strip).save(folder / f"strip{prompt}.png")
        times = tuple(float(second) for second in range(len(clip)))
        media.append(Media(kind="video", path=f"{prompt}.mp4", strip=f"strip{prompt}.png", times=times))
    question = "Which? " * (1 + prompt)  # so that the tokens of a pass identify the prompts
    return PromptRow(prompt_id=f"p{prompt}", question=question, answer="A", choices=("3", "7"), media=tuple(media))


def clip_trainer(folder: Path, **settings: Any) -> Any:
    model, processor = varied_vlm()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    model.name_or_path = str(folder / "model")  # from which TRL loads the reference
    model.config._name_or_path = str(folder / "model")
    rows = write_rows(folder)
    measure: dict[str, Any] = {
        "credit": ["perception_filter", "attention_weights"],
        "signals": SignalPlan(masking=Masking(probability=0.0)),  # so that the masked pass shows the clip too
    }
    measure |= {name: settings.pop(name) for name in measure if name in settings}
    wait_for_all()
    arguments: dict[str, Any] = {
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 4},
        **{"num_generations": SIZE, "num_iterations": 2, "max_completion_length": 5, "max_steps": 2, "beta": 0.1},
        **{"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True},
    }
    return CreditGRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [float(index % SIZE) for index in range(len(completions))],
        args=GRPOConfig(output_dir=str(folder / "out"), **arguments | settings),
        train_dataset=dataset_of(rows, processor, folder),
        processing_class=processor,
        **measure,
    )


class Seen:
    """Collects, from a hook in a vision model, the pixels and the tokens of every pass."""

    def __init__(self, model: Any) -> None:
        self.passes: list[tuple[list[int], list[int]]] = []
        self.image_token = model.config.image_token_id
        self.question = None
        model.model.register_forward_pre_hook(self._hook, with_kwargs=True)

    def _hook(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        pixels = kwargs.get("pixel_values")
        if pixels is not None:
            greys = ((pixels.mean(dim=(1, 2, 3)) + 1) / 2 * 255).round().int().tolist()
            self.passes.append((kwargs["input_ids"], greys))

    def check(self, tokenizer: Any) -> int:
        """Each row of each pass has the pixels of its own prompt, in order; returns how many rows there were."""
        (word,) = set(tokenizer("Which?", add_special_tokens=False)["input_ids"][:1])
        rows = 0
        for ids, greys in self.passes:
            left = list(greys)
            for row in ids:
                prompt = int((row == word).sum()) - 1
                count = MEDIA[prompt][1]
                own, left = left[:count], left[count:]
                assert own == [grey_level(prompt, frame) for frame in range(count)]
                rows += 1
            assert not left
        return rows


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}])
def test_every_pass_sees_the_frames_of_its_own_clips(tmp_path: Path, settings: dict[str, Any]):
    trainer = clip_trainer(tmp_path, **settings)
    policy, reference = Seen(trainer.model), Seen(trainer.ref_model)
    trainer.train()
    # 8 completions: sampled, old log-probs, scored with image and masked image for signals, 2 iterations of the loss.
    tokenizer = trainer.processing_class.tokenizer
    assert policy.check(tokenizer) >= 8 * 6
    assert reference.check(tokenizer) == 8


def test_log_probs_agree_between_passes_and_follow_the_clip(tmp_path: Path):
    trainer = clip_trainer(tmp_path)
    trainer.model.train()
    steps = sampled_steps(trainer)
    rows = [trainer.train_dataset[index] for index in (0, 1, 3) for _ in range(SIZE)]
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
    ids, mask = output["completion_ids"], output["completion_mask"].bool()
    logits = torch.stack(steps[: ids.shape[1]], dim=1)
    sampled = logits.log_softmax(dim=2).gather(2, ids[..., None])[..., 0]
    torch.testing.assert_close(output["old_per_token_logps"][mask], sampled[mask], atol=1e-4, rtol=0)
    # A mask of probability 0 hides nothing: the masked pass sees the clip as well.
    assert trainer.xp_batch.measured.perception_BT[mask].abs().max() < 1e-5
    output["pixel_values"] = torch.full_like(output["pixel_values"], -1.0)  # black
    with torch.no_grad():
        without = scored_by_trl(trainer, trainer.model, output)
    change = (without - sampled).abs() * mask
    assert bool((change.amax(dim=1) > 1e-2).all())


def test_evaluation_and_warm_start_see_the_frames_of_their_own_clips(tmp_path: Path):
    model, processor = build_tiny_vlm(SMALLEST, TEXTS)
    rows, chat, images = write_rows(tmp_path), ChatFormat(processor=processor, with_format_instruction=False), None
    images = StudyImages(tmp_path)
    seen = Seen(model)
    how = Decoding(sampled=True, temperature=1.0, top_p=1.0, max_completion_length=3, seed=0)
    shown = [images(chat.images(row)) for row in rows]
    decode_batch(model.eval(), processor, [chat.prompt(row) for row in rows], shown, how)
    assert seen.check(processor.tokenizer) == len(rows)
    demonstrated = [row.model_copy(update={"demonstration": "<answer>A</answer>"}) for row in rows]
    dataset = sft_dataset(demonstrated, chat, tmp_path)
    for index, example in enumerate(dataset):
        greys = [int(np.asarray(image).mean()) for image in example["images"]]
        assert greys == [grey_level(index, frame) for frame in range(MEDIA[index][1])]


def test_an_arm_may_show_fewer_frames_of_a_clip(tmp_path: Path):
    _, processor = build_tiny_vlm(SMALLEST, TEXTS)
    row = write_rows(tmp_path)[0]
    clip = row.media[0].model_copy(update={"times": tuple(map(float, range(7)))})
    row = row.model_copy(update={"media": (clip,)})

    def shown(most: int | None) -> list[str]:
        view = ClipView(max_frames=most)
        chat = ChatFormat(processor=processor, with_format_instruction=False, clips=view)
        assert [part["type"] for part in chat.prompt(row)[0]["content"]] == ["image"] * len(chat.images(row)) + ["text"]
        return [path.partition("=")[2] for path in chat.images(row)]

    assert shown(None) == [f"{index}/7" for index in range(7)]
    assert shown(3) == ["0/7", "3/7", "6/7"]
    assert shown(1) == ["0/7"]
    assert shown(9) == shown(None)
