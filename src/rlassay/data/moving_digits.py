"""Built-in clips: mp4 files of a handwritten digit that performs two actions in turn."""

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from rlassay.config.data import ImagePolicy, MovingDigits
from rlassay.data.builtin import DigitPool, rng_for, split_images
from rlassay.data.json_records import of_conversation
from rlassay.data.raw_examples import RawExample, Source, convert_each
from rlassay.prompts import demonstrate
from rlassay.records import TRAINING_SPLITS

ACTIONS = ("left", "right", "up", "down", "grows", "vanishes", "changes", "stays")
"""Actions of a digit, in the order of the option numbers, from 1."""
QUESTION = "What does the digit do? " + " ".join(f"({number}){name}" for number, name in enumerate(ACTIONS, 1))
SIDE = 16
"""Width and height of a clip, pixels."""
SEGMENT = 6
"""Frames of an action."""
FPS = 4
HELD_OUT = 0.3
"""Share of the digit images that are for evaluation splits only."""
_STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def moving_digits(section: MovingDigits) -> Source:
    """Endless records in the schema of `conversations`, each about the actions in a clip.

    A record has the clip, the list of actions, and those that happen, in order. The digit begins each action in the
    middle of the picture. Every ordered pair of different actions is as likely; the digit images of training and
    evaluation splits differ, as in `digits`.
    """
    training, held_out = split_images(section.seed, HELD_OUT)
    pools = {split: training if split in TRAINING_SPLITS else held_out for split in section.splits}
    examples = {split: partial(_examples, section, pool, split) for split, pool in pools.items()}
    return Source(examples=examples, images=ImagePolicy(), clips=section.clips, generated=True, drawn=True)


def _examples(section: MovingDigits, pool: DigitPool, split: str) -> Iterator[Any]:
    rng = rng_for(section.seed, f"demonstrations {split}")
    records = ((record, "") for record in generate_records(section.seed, pool, split))
    for example in convert_each(records, partial(of_conversation, root=None)):
        if split == "sft" and isinstance(example, RawExample):
            yield _with_demonstration(example, section, rng)
        else:
            yield example


def generate_records(seed: int, pool: DigitPool, split: str) -> Iterator[dict[str, Any]]:
    """Endless records of a clip, in the form of the published data.

    They have the frame counts of the clip's two actions.
    """
    rng = rng_for(seed, f"clips {split}")
    number = 0
    while True:
        actions = [ACTIONS[int(index)] for index in rng.permutation(len(ACTIONS))[:2]]
        digit = int(rng.integers(10))
        pixels = pool.pixels[int(rng.choice(pool.indices_by_digit[digit]))]
        other = pool.pixels[int(rng.choice(pool.indices_by_digit[(digit + int(rng.integers(1, 10))) % 10]))]
        frames = [frame for action in actions for frame in draw_action(action, pixels, other)]
        yield {
            "id": f"{split}-{number}",
            "conversations": [
                {"from": "human", "value": f"<video>\n{QUESTION}"},
                {"from": "gpt", "value": demonstrate(stated(actions), " ".join(actions))},
            ],
            "video": encode_mp4(frames, FPS),
            "meta": {"frame_cnts": [SEGMENT, SEGMENT], "min_frames": 4, "max_frames": SEGMENT, "dynamic_sample": True},
        }
        number += 1


def stated(actions: list[str]) -> str:
    """The answer that names actions: `(1)left (6)vanishes`."""
    return " ".join(f"({ACTIONS.index(action) + 1}){action}" for action in actions)


def draw_action(action: str, pixels: NDArray[np.float64], other: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
    """The SEGMENT frames of one action, grey levels 0..255 of SIDE x SIDE pixels.

    Args:
        action: one of ACTIONS.
        pixels: (8, 8) grey levels 0..16, the digit.
        other: (8, 8), the digit that it changes into.
    """
    frames: list[NDArray[np.uint8]] = []
    for moment in range(SEGMENT):
        shown = other if action == "changes" and moment > 1 else pixels
        if action == "grows":
            side = 8 + 8 * moment // (SEGMENT - 1)
            nearest = np.arange(side) * 8 // side
            shown = shown[nearest][:, nearest]
        middle = (SIDE - len(shown)) // 2
        down, right = (min(moment, 4) * step for step in _STEPS.get(action, (0, 0)))
        frame = np.zeros((SIDE, SIDE))
        if not (action == "vanishes" and moment > 1):
            frame[middle + down :, middle + right :][: len(shown), : len(shown)] = shown
        frames.append(np.rint(frame * (255 / 16)).astype(np.uint8))
    return frames


def encode_mp4(frames: list[NDArray[np.uint8]], fps: int) -> bytes:
    """A lossless mp4 file of grey frames; the same frames give the same bytes."""
    content = io.BytesIO()
    container: Any  # the types of av leave its streams open
    with av.open(content, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "rgb24"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([frame] * 3, axis=2), format="rgb24")))
        container.mux(stream.encode())
    return content.getvalue()


def _with_demonstration(example: RawExample, section: MovingDigits, rng: np.random.Generator) -> RawExample:
    """The example with a demonstration of mixed quality, as in `digits`.

    It is a guess, has a misread action, or is right.
    """
    draw = rng.random()
    actions = [action for action in ACTIONS if f"){action}" in example.answer]
    actions.sort(key=example.answer.index)
    thinking: str | None = " ".join(actions)
    style = "right"
    if draw < section.guess_share:
        style, thinking = "guess", None
        actions = [ACTIONS[int(index)] for index in rng.permutation(len(ACTIONS))[:2]]
    elif draw < section.guess_share + section.misread_share:
        style, place = "misread", int(rng.integers(2))
        actions[place] = str(rng.choice([action for action in ACTIONS if action not in actions]))
    meta = {**example.meta, "demonstration": style}
    return replace(example, demonstration=demonstrate(stated(actions), thinking), meta=meta)
