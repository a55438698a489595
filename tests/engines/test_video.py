"""Clips by the video input of Qwen-VL: each pass of the model gets the tensors of its own clips."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trl import GRPOConfig, SFTConfig, SFTTrainer

from rlassay.cli.main import main
from rlassay.config import StudyError
from rlassay.config.model import ClipView, HubModel, Lora, Tune
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.decoding import Decoding
from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat, build_policy, peft_config
from rlassay.models.tuning import part_of
from rlassay.models.video_input import clip_problem, process_prompt
from rlassay.records import Media, PromptRow
from rlassay.signals import (
    SEGMENTS,
    Masking,
    ScoringConfig,
    masked_inputs,
    model_inputs,
    segment_ids,
    teacher_forced,
    vision_grid,
)
from rlassay.signals.measuring import SignalPlan, summarise_attention
from rlassay.training import CreditGRPOTrainer
from rlassay.training.batch import clips_of, images_of
from rlassay.training.prompts import prompt_dataset
from rlassay.training.sft import sft_dataset
from rlassay.training.video import ClipCollator
from tests.config.studies import content, write
from tests.contract.clip_step import wait_for_all
from tests.contract.test_processes import check_gradients
from tests.engines.qwen import (
    onevision_processor,
    qwen2_model,
    qwen2_processor,
    qwen3_model,
    qwen3_processor,
    qwen_model,
    qwen_processor,
)
from tests.engines.vllm_process import needs_torchvision
from tests.launcher import Launcher
from tests.models.hubs import hub
from tests.signals.make import eager_mass
from tests.training.sampled_steps import sampled_steps

pytestmark = needs_torchvision

SIZE = 2
SHOWN = (("video", 4), ("video", 6), ("image", 1), ("both", 5), ("text", 0), ("videos", 7))
"""For each prompt the kind and number of its images or frames; an odd number of frames repeats the last."""
MAKERS = {"Qwen2.5-VL": (qwen_model, qwen_processor), "Qwen3-VL": (qwen3_model, qwen3_processor)}
ALL = {**MAKERS, "Qwen2-VL": (qwen2_model, qwen2_processor)}


def _row(folder: Path, prompt: int, kind: str, count: int) -> PromptRow:
    rng = np.random.default_rng(prompt)
    frames = rng.integers(0, 256, (count, 56, 56, 3), dtype=np.uint8)
    media: list[Media] = []
    if kind in ("image", "both"):
        Image.fromarray(frames[0]).save(folder / f"{prompt}.png")
        media.append(Media(path=f"{prompt}.png"))
    parts = {"video": [frames], "both": [frames[1:]], "videos": [frames[:3], frames[3:]]}.get(kind, [])
    for part, shown in enumerate(parts):
        Image.fromarray(np.concatenate(list(shown), axis=1)).save(folder / f"strip{prompt}{part}.png")
        times = tuple(0.6 * index for index in range(len(shown)))
        about = {"strip": f"strip{prompt}{part}.png", "times": times, "duration": 0.6 * len(times), "fps": 10.0}
        media.append(Media(kind="video", path=f"{prompt}{part}.mp4", **about))
    question = "Which? " * (1 + prompt)
    return PromptRow(prompt_id=f"p{prompt}", question=question, answer="A", choices=("3", "7"), media=tuple(media))


def video_trainer(folder: Path, kind: str, **settings: Any) -> Any:
    make_model, make_processor = ALL[kind]
    processor = make_processor()
    model = make_model(processor.tokenizer)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    model.name_or_path = model.config._name_or_path = str(folder / "model")  # from where TRL loads reference and vLLM
    rows = [_row(folder, prompt, *shown) for prompt, shown in enumerate(SHOWN)]
    wait_for_all()
    arguments: dict[str, Any] = {
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 5, "steps_per_generation": 5},
        **{"num_generations": SIZE, "num_iterations": 2, "max_completion_length": 5, "max_steps": 2, "beta": 0.1},
        **{"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True},
    }
    chat = ChatFormat(processor=processor, with_format_instruction=False, clips=ClipView(show="video"))
    others: dict[str, Any] = {
        "credit": ["perception_filter", "attention_weights"],
        "signals": SignalPlan(masking=Masking(probability=0.0)),  # so that the masked pass shows the clip too
        "groups": None,
        "peft_config": None,
        "kl": None,
        "vllm": None,
        "advantage": None,
        "critic": None,
        "reward_funcs": lambda completions, **columns: [float(index % SIZE) for index in range(len(completions))],
    }
    others |= {name: settings.pop(name) for name in others if name in settings}
    trainer: Any = CreditGRPOTrainer(
        model=model,
        args=GRPOConfig(output_dir=str(folder / "out"), **arguments | settings),
        train_dataset=prompt_dataset(
            {row.prompt_id: row for row in rows}, [row.prompt_id for row in rows], chat, StudyImages(folder)
        ),
        processing_class=processor,
        **others,
    )
    return trainer


class Seen:
    """Checks, in a hook, the tensors of every pass against those that the processor makes of each row's own prompt."""

    NAMES = ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")

    def __init__(self, model: Any, trainer: Any) -> None:
        self.rows = 0
        self.padding = trainer.processing_class.tokenizer.pad_token_id
        self.own: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
        for row in trainer.train_dataset:
            prompt = row["prompt"]
            media = [*images_of(prompt), *clips_of(prompt)]
            tokens, own = process_prompt(trainer.processing_class, trainer._xp_text(prompt), media)
            self.own.append((tokens["input_ids"], own))
        model.model.register_forward_pre_hook(self._hook, with_kwargs=True)

    def _tensors(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
        """The processor's tensors of the prompt that a row of tokens begins with, after its padding."""
        row = row[int(row.ne(self.padding).nonzero()[0]) :]
        (found,) = [own for ids, own in self.own if torch.equal(row[: len(ids)], ids)]
        return found

    def _hook(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        if ids is None or ids.shape[1] == 1:
            return  # a later token of sampling
        rows = [self._tensors(row) for row in ids]
        for name in self.NAMES:
            expected = [own[name] for own in rows if name in own]
            found = kwargs.get(name)
            if not expected:
                assert found is None
                continue
            assert found is not None, name
            # Frames to be masked are resized by Pillow, which rounds a few pixels otherwise; values go from -2 to 2.
            torch.testing.assert_close(found, torch.cat(expected).to(found.dtype), atol=0.05, rtol=0)
        self.rows += len(ids)


@pytest.mark.parametrize("kind", ALL)
def test_every_pass_sees_its_own_clips(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind, gradient_checkpointing=kind == "Qwen2.5-VL")
    policy, reference = Seen(trainer.model, trainer), Seen(trainer.ref_model, trainer)
    trainer.train()
    # 10 completions: sampled, old log-probs, twice for signals, and in two iterations of the loss.
    assert policy.rows >= 10 * 6
    assert reference.rows == 10


@pytest.mark.parametrize("kind", ALL)
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
    has_media = [kind != "text" for kind, _ in SHOWN for _ in range(SIZE)]
    assert trainer.xp_batch.measured.has_image_B.tolist() == has_media
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
    shows_clip = torch.tensor([kind in ("video", "both", "videos") for kind, _ in SHOWN for _ in range(SIZE)])
    assert bool((change[shows_clip] > 1e-2).all())
    assert change[~shows_clip].max() < 1e-5


def test_a_model_without_a_grid_for_each_clip_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trainer = video_trainer(tmp_path, "Qwen2.5-VL")
    trainer.processing_class = onevision_processor()
    with pytest.raises(ValueError, match=r"the model has no grid for each clip .*; show clips as frames"):
        trainer.xp_process_media([row["prompt"] for row in trainer.train_dataset])
    folder = tmp_path / "model"
    trainer.processing_class.save_pretrained(folder)
    section = {"kind": "hub", "name": str(folder), "dtype": "float32", "clips": {"show": "video"}}
    expected = (
        f"model.clips.show: video, but {str(folder)!r} has no grid for each clip (LlavaOnevisionProcessor), so "
        "that clips of unequal numbers of frames cannot share a batch; take 'frames'"
    )
    with pytest.raises(StudyError, match=re.escape(expected)):
        build_policy(HubModel(**section), [])
    assert main(["validate", str(write(tmp_path / "study.yaml", content(model=section)))]) == 2
    assert expected in capsys.readouterr().err
    section["clips"] = {"show": "frames"}
    assert clip_problem(HubModel(**section), trainer.processing_class) is None


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


def test_two_processes_give_the_gradients_of_one(launcher: Launcher, tmp_path: Path):
    check_gradients(launcher, tmp_path, "tests.engines.test_video:qwen_trainer")


def qwen_trainer(folder: Path, **settings: Any) -> Any:
    """The trainer of `video_trainer` for Qwen2.5-VL."""
    return video_trainer(folder, "Qwen2.5-VL", **settings)


def test_adapters_train_on_clips_outside_of_a_frozen_tower(tmp_path: Path):
    section = hub(tmp_path, Lora(r=2, target_modules="all-linear"))
    trainer = video_trainer(tmp_path, "Qwen2.5-VL", peft_config=peft_config(section, Tune()), beta=0.0)
    seen = Seen(trainer.model.get_base_model(), trainer)
    before = {name: each.detach().clone() for name, each in trainer.model.named_parameters() if each.requires_grad}
    trainer.train()
    changed = {
        name for name, each in trainer.model.named_parameters() if name in before and (each != before[name]).any()
    }
    assert {part_of(name) for name in changed} == {"connector", "language_model"}
    assert seen.rows >= 10 * 5


@pytest.mark.parametrize("kind", MAKERS)
def test_a_warm_start_learns_from_clips(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind)
    model, processor = trainer.model, trainer.processing_class
    words = ("<think>3</think><answer>A</answer>", "<answer>B</answer>")
    rows = [
        _row(tmp_path, prompt, *shown).model_copy(update={"demonstration": words[prompt % 2]})
        for prompt, shown in enumerate(SHOWN)
    ]
    chat = ChatFormat(processor=processor, with_format_instruction=False, clips=ClipView(show="video"))
    dataset: Any = sft_dataset(rows, chat, tmp_path)
    collator = ClipCollator(processor)
    with torch.no_grad():
        loss = model(**collator([dataset[index] for index in range(len(rows))])).loss
    assert loss.item() == pytest.approx(loss_by_hand(model, chat, rows, tmp_path), rel=1e-5)
    seen = Seen(model, trainer)
    arguments = SFTConfig(
        **{"output_dir": str(tmp_path / "sft"), "max_steps": 2, "per_device_train_batch_size": 3, "use_cpu": True},
        **{"completion_only_loss": True, "max_length": None, "bf16": False, "report_to": [], "save_strategy": "no"},
        **{"disable_tqdm": True, "learning_rate": 1e-2},
    )
    sft: Any = SFTTrainer(
        model=model, args=arguments, train_dataset=dataset, processing_class=processor, data_collator=collator
    )
    sft.train()
    assert seen.rows == 6
    with torch.no_grad():
        assert model(**collator([dataset[index] for index in range(len(rows))])).loss < loss


def loss_by_hand(model: Any, chat: ChatFormat, rows: list[PromptRow], folder: Path) -> float:
    """Nats per token of the demonstrations, each read alone."""
    processor: Any = chat.processor
    images = StudyImages(folder)
    nats, tokens = 0.0, 0
    for row in rows:
        shown = [*images(chat.images(row)), *chat.video_clips(row, images)]
        by_token, by_media = process_prompt(processor, chat.rendered(row), shown)
        ids = processor.tokenizer(str(row.demonstration) + "<|im_end|>", add_special_tokens=False)["input_ids"]
        added = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)}
        zeros = torch.zeros(len(ids), dtype=torch.long)
        whole = {name: torch.cat([each, added.get(name, zeros)])[None] for name, each in by_token.items()}
        with torch.no_grad():
            logps = model(**whole, **by_media).logits[0, -len(ids) - 1 : -1].log_softmax(dim=1)
        nats -= logps.gather(1, added["input_ids"][:, None]).sum().item()
        tokens += len(ids)
    return nats / tokens


@pytest.mark.parametrize("kind", MAKERS)
def test_signals_count_the_tokens_of_clips(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind)
    processor = trainer.processing_class
    model, eager = (MAKERS[kind][0](processor.tokenizer).eval() for _ in range(2))
    prompts = [row["prompt"] for row in trainer.train_dataset]
    media = [[*images_of(prompt), *clips_of(prompt)] for prompt in prompts]
    ids = torch.randint(40, 200, (len(prompts), 3), generator=torch.Generator().manual_seed(1))
    inputs = model_inputs(processor, prompts, media, ids, torch.ones_like(ids))
    segments = segment_ids(inputs, processor, model.config)
    vision = (segments == SEGMENTS.index("vision")).sum(dim=1).tolist()
    side = 2  # tokens along the side of a frame of 56 pixels
    # Two frames share their tokens; of an odd number the last is repeated: 2, 3, -, 2 + an image, -, 2 + 2 moments.
    assert vision == [side**2 * moments for moments in (2, 3, 1, 3, 0, 4)]
    grids = [vision_grid(inputs, sample, segments) for sample in range(len(prompts))]
    assert grids == [(2, side, side), (3, side, side), (side, side), None, None, None]
    scores = teacher_forced(model, inputs, ScoringConfig(), segment_ids=segments)
    assert scores.attention_mass is not None
    expected = eager_mass(eager, inputs.batch(range(len(prompts)), model.device), segments, 3)
    torch.testing.assert_close(scores.attention_mass, expected, rtol=0, atol=1e-5)
    summary = summarise_attention(scores.attention_mass, segments, scheme="thirds", dominance="all")
    text, seen = (expected.mean(dim=0)[..., SEGMENTS.index(name)] for name in ("text", "vision"))
    counts = [(segments[0] == SEGMENTS.index(name)).sum() for name in ("text", "vision")]
    by_hand = (text[0] / counts[0]) / (seen[0] / counts[1])
    torch.testing.assert_close(summary.dominance_BT[0], by_hand, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_mask_without_blocks_hides_whole_frames(tmp_path: Path, kind: str):
    trainer = video_trainer(tmp_path, kind)
    processor = trainer.processing_class
    prompts = [row["prompt"] for row in trainer.train_dataset]
    media = [[*images_of(prompt), *clips_of(prompt)] for prompt in prompts]
    ids = torch.ones(len(prompts), 2, dtype=torch.long)
    inputs = model_inputs(processor, prompts, media, ids, ids)
    generators = [np.random.default_rng(row) for row in range(len(prompts))]
    masked = masked_inputs(processor, inputs, media, generators, Masking(block=None))
    hidden, shown = 0, 0
    for row in (0, 1):  # of one clip each; the values of a patch are channel, moment, height, width
        before, after = (each.by_image[row]["pixel_values_videos"] for each in (inputs, masked))
        grid = inputs.by_image[row]["video_grid_thw"][0].tolist()
        shape = (grid[0], grid[1] * grid[2], 3, 2, -1)
        for moment, (was, now) in enumerate(zip(before.view(shape), after.view(shape), strict=True)):
            for frame in range(2):
                kept = torch.allclose(was[:, :, frame], now[:, :, frame], atol=0.05)
                black = all(bool((now[:, channel, frame] == now[0, channel, frame, 0]).all()) for channel in range(3))
                assert kept != black, (row, moment, frame)
                hidden, shown = hidden + black, shown + kept
    assert hidden > 0
    assert shown > 0
