"""Clips by the video input of Qwen-VL: each pass of the model gets the tensors of its own clips."""

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
from rlassay.models.video_input import process_prompt
from rlassay.records import Media, PromptRow
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training import CreditGRPOTrainer, GroupPlan, Replay
from rlassay.training.batch import clips_of, images_of
from rlassay.training.prompts import prompt_dataset
from tests.engines.qwen import qwen3_model, qwen3_processor, qwen_model, qwen_processor
from tests.engines.vllm_process import needs_torchvision
from tests.training.sampled_steps import sampled_steps

pytestmark = needs_torchvision

SIZE = 2
SHOWN = (("video", 4), ("video", 6), ("image", 1), ("both", 5), ("text", 0))
"""For each prompt what it shows, and of how many images or frames; an odd number of frames repeats the last."""
MAKERS = {"Qwen2.5-VL": (qwen_model, qwen_processor), "Qwen3-VL": (qwen3_model, qwen3_processor)}


def _row(folder: Path, prompt: int, kind: str, count: int) -> PromptRow:
    rng = np.random.default_rng(prompt)
    frames = rng.integers(0, 256, (count, 56, 56, 3), dtype=np.uint8)
    media: list[Media] = []
    if kind in ("image", "both"):
        Image.fromarray(frames[0]).save(folder / f"{prompt}.png")
        media.append(Media(path=f"{prompt}.png"))
    if kind in ("video", "both"):
        Image.fromarray(np.concatenate(list(frames[len(media) :]), axis=1)).save(folder / f"strip{prompt}.png")
        times = tuple(0.6 * index for index in range(count - len(media)))
        about = {"strip": f"strip{prompt}.png", "times": times, "duration": 0.6 * len(times), "fps": 10.0}
        media.append(Media(kind="video", path=f"{prompt}.mp4", **about))
    question = "Which? " * (1 + prompt)
    return PromptRow(prompt_id=f"p{prompt}", question=question, answer="A", choices=("3", "7"), media=tuple(media))


def video_trainer(folder: Path, kind: str, **settings: Any) -> Any:
    make_model, make_processor = MAKERS[kind]
    processor = make_processor()
    model = make_model(processor.tokenizer)
    model.save_pretrained(folder / "model")
    model.config._name_or_path = str(folder / "model")  # from which TRL loads the reference
    rows = [_row(folder, prompt, *shown) for prompt, shown in enumerate(SHOWN)]
    arguments: dict[str, Any] = {
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 5, "steps_per_generation": 5},
        **{"num_generations": SIZE, "num_iterations": 2, "max_completion_length": 5, "max_steps": 2, "beta": 0.1},
        **{"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True},
    }
    chat = ChatFormat(processor=processor, with_format_instruction=False, clips=ClipView(show="video"))
    groups = settings.pop("groups", None)
    trainer: Any = CreditGRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [float(index % SIZE) for index in range(len(completions))],
        args=GRPOConfig(output_dir=str(folder / "out"), **arguments | settings),
        train_dataset=prompt_dataset(
            {row.prompt_id: row for row in rows}, [row.prompt_id for row in rows], chat, StudyImages(folder)
        ),
        processing_class=processor,
        credit=["perception_filter", "attention_weights"],
        signals=SignalPlan(masking=Masking(probability=0.0)),  # so that the masked pass shows the clip too
        groups=groups,
    )
    return trainer


class Seen:
    """Checks, in a hook, the tensors of every pass against those that the processor makes of each row's own prompt."""

    NAMES = ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")

    def __init__(self, model: Any, trainer: Any) -> None:
        self.rows = 0
        tokenizer = trainer.processing_class.tokenizer
        self.word = tokenizer("Which?", add_special_tokens=False)["input_ids"][0]
        self.own: dict[int, dict[str, torch.Tensor]] = {}
        for row in trainer.train_dataset:
            prompt = row["prompt"]
            text = trainer._xp_text(prompt)
            media = [*images_of(prompt), *clips_of(prompt)]
            tokens, own = process_prompt(trainer.processing_class, text, media)
            self.own[int((tokens["input_ids"] == self.word).sum())] = own
        assert len(self.own) == len(SHOWN)
        model.model.register_forward_pre_hook(self._hook, with_kwargs=True)

    def _hook(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        if ids is None or ids.shape[1] == 1:
            return  # a later token of sampling
        numbers = [int((row == self.word).sum()) for row in ids]
        for name in self.NAMES:
            expected = [self.own[number][name] for number in numbers if name in self.own[number]]
            found = kwargs.get(name)
            if not expected:
                assert found is None
                continue
            assert found is not None, name
            # Frames to be masked are resized by Pillow, which rounds a few pixels otherwise; values go from -2 to 2.
            torch.testing.assert_close(found, torch.cat(expected).to(found.dtype), atol=0.05, rtol=0)
        self.rows += len(ids)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_pass_sees_its_own_clips(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind, gradient_checkpointing=kind == "Qwen2.5-VL")
    policy, reference = Seen(trainer.model, trainer), Seen(trainer.ref_model, trainer)
    trainer.train()
    # 10 completions: sampled, old log-probs, twice for signals, and in two iterations of the loss.
    assert policy.rows >= 10 * 6
    assert reference.rows == 10


@pytest.mark.parametrize("kind", MAKERS)
def test_log_probs_agree_with_sampling_and_follow_the_clip(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind)
    trainer.model.train()
    steps = sampled_steps(trainer)
    rows = [trainer.train_dataset[index] for index in range(len(SHOWN)) for _ in range(SIZE)]
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
    ids, mask = output["completion_ids"], output["completion_mask"].bool()
    logits = torch.stack(steps[: ids.shape[1]], dim=1)
    sampled = logits.log_softmax(dim=2).gather(2, ids[..., None])[..., 0]
    old = output["old_per_token_logps"]
    torch.testing.assert_close(old[mask], sampled[mask], atol=1e-4, rtol=0)
    # Perception by a mask that hides nothing is 0, so the signal passes saw the clips.
    assert trainer.xp_batch.measured.perception_BT[mask].abs().max() < 1e-5
    assert trainer.xp_batch.measured.has_image_B.tolist() == [True] * 8 + [False] * 2
    for media in {id(each): each for each in output["xp_media"]}.values():
        if "pixel_values_videos" in media.by_media:
            media.by_media["pixel_values_videos"] = torch.full_like(media.by_media["pixel_values_videos"], -1.5)
    trainer.xp_media = output["xp_media"]
    whole = torch.cat([output["prompt_ids"], ids], dim=1)
    attention = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    with torch.no_grad():
        black = trainer._get_per_token_logps_and_entropies(trainer.model, whole, attention, ids.shape[1], batch_size=2)[
            0
        ]
    change = ((black - old).abs() * mask).amax(dim=1)
    shows_clip = torch.tensor([kind in ("video", "both") for kind, _ in SHOWN for _ in range(SIZE)])
    assert bool((change[shows_clip] > 1e-2).all())
    assert change[~shows_clip].max() < 1e-5


@pytest.mark.parametrize("kind", MAKERS)
def test_evaluation_gets_the_clips_and_gives_what_a_prompt_alone_gives(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind)
    how = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=4, seed=0)
    prompts = [row["prompt"] for row in trainer.train_dataset]
    media = [[*images_of(prompt), *clips_of(prompt)] for prompt in prompts]
    model, processor = trainer.model.eval(), trainer.processing_class
    seen = Seen(model, trainer)
    together = decode_batch(model, processor, prompts, media, how)
    assert seen.rows == len(SHOWN)
    alone = [
        decode_batch(model, processor, [prompt], [own], how)[0] for prompt, own in zip(prompts, media, strict=True)
    ]
    assert [each.ids for each in together] == [each.ids for each in alone]


def test_what_takes_images_only_is_refused(tmp_path: Path):
    trainer = video_trainer(tmp_path, "Qwen2.5-VL", groups=GroupPlan(replay=Replay()))
    with pytest.raises(ValueError, match=r"clips for the processor's video input, but replay: images only; show clips"):
        trainer.train()
