"""Times of a clip's frames as Qwen-VL's processors and models take them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlassay.config.data import ClipPolicy
from rlassay.data.clips import sample_frames
from rlassay.images import Clip
from rlassay.models.video_input import process_prompt, video_options
from tests.data.make_clips import write_clip
from tests.engines.qwen import qwen3_processor, qwen_model, qwen_processor
from tests.engines.test_video import MAKERS
from tests.engines.vllm_process import needs_torchvision

pytestmark = needs_torchvision

TEXT = "<|vision_start|><|video_pad|><|vision_end|>Which?"


def grey_clip(times: tuple[float, ...], duration: float, fps: float) -> Clip:
    frames = tuple(Image.new("RGB", (56, 56), (20 * index,) * 3) for index in range(len(times)))
    return Clip(frames=frames, times=times, duration=duration, fps=fps)


def test_prompts_state_the_times_of_frames():
    clip = grey_clip((0.0, 0.6, 1.2, 1.8), 2.4, 10.0)
    qwen3 = qwen3_processor()
    ids, _ = process_prompt(qwen3, TEXT, [clip])
    # Two frames share their tokens, at the mean of their times: .3 and 1.5 s.
    assert re.findall(r"<([\d.]+) seconds>", qwen3.tokenizer.decode(ids["input_ids"])) == ["0.3", "1.5"]
    _, tensors = process_prompt(qwen_processor(), TEXT, [clip])
    assert tensors["second_per_grid_ts"].tolist() == pytest.approx([1.2])  # two frames, .6 s apart


def real_clip(folder: Path, seconds: float, fps: int) -> Clip:
    """A clip as the study 's3_video' shows it: 4 to 8 frames, one for every two seconds."""
    pixels = [np.full((56, 56, 3), 5 * index % 256, np.uint8) for index in range(round(seconds * fps))]
    shown = sample_frames(write_clip(folder / "clip.mp4", pixels, fps=fps), ClipPolicy(video_fps=0.5))
    return Clip(frames=shown.images, times=shown.times, duration=shown.duration, fps=shown.fps)


@pytest.mark.parametrize(
    ("seconds", "fps", "apart"),
    # Two frames share their tokens. With four frames these are half of the clip apart, of which transformers 5.17
    # counts whole seconds: none below two seconds, which would give all frames one time.
    [(0.4, 10, 1), (1, 30, 1), (1.5, 10, 1), (1.9, 30, 1), (2, 10, 1), (3.9, 10, 1), (4, 10, 2), (9, 10, 4)],
)
def test_qwen25_keeps_the_order_of_frames_of_short_clips(seconds: float, fps: int, apart: int, tmp_path: Path):
    processor = qwen_processor()
    model = qwen_model(processor.tokenizer)
    tokens, media = process_prompt(processor, TEXT, [real_clip(tmp_path, seconds, fps)])
    about = {name: media[name] for name in ("video_grid_thw", "second_per_grid_ts")}
    ids, kinds = tokens["input_ids"][None], tokens["mm_token_type_ids"][None]
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, **about)
    of_frames = positions[0, 0][kinds[0] == 2].unique_consecutive()
    assert of_frames.diff().tolist() == [model.config.vision_config.tokens_per_second * apart]


@pytest.mark.parametrize("count", range(1, 17))
def test_at_most_two_frames_per_second_reach_the_processor(count: int):
    for fps in (2.0, 2.01, 7.5, 10.0, 23.976, 25.0, 29.97, 30.0, 59.94, 120.0):
        clip = grey_clip(tuple(index / fps for index in range(count)), count / fps, fps)
        (about,) = video_options([clip])["video_metadata"]
        assert np.float32(2 / about.sampled_fps) >= 1  # seconds of two frames, as the processor's tensor has them


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("fps", [0.0, 10.0])
def test_a_clip_of_one_frame_is_shown(kind: str, fps: float):
    processor = MAKERS[kind][1]()
    one = grey_clip((0.0,), 0.1 if fps else 0.0, fps)
    _, tensors = process_prompt(processor, TEXT, [one])
    assert tensors["video_grid_thw"].tolist() == [[1, 4, 4]]  # one moment of 4 x 4 patches
    assert bool(tensors["pixel_values_videos"].isfinite().all())
