"""Time and memory of decoding 8 frames of a 10-minute 1080p clip, and the share of decoding in a training step.

Each way of reading the clip runs in a process of its own, whose peak of memory is its own too (`VmHWM`: `ru_maxrss`
of a child begins at the peak of its parent), less what it had after its imports. The last lines are the figures. Run:
`python -m benchmarks.clip_decoding [minutes] [frames from one key frame to the next]`
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from rlassay.config.data import MovingDigits
from rlassay.config.model import TinyVLM
from rlassay.data.prepare import load_rows
from rlassay.images import StudyImages

FPS, WIDTH, HEIGHT = 25, 1920, 1080
KEY_EVERY = 50
"""Two seconds, as encoders for streaming choose."""
STEPS, PROMPTS, GENERATIONS = 6, 16, 8
READERS = {
    "frames": "sample_frames(Path(file), ClipPolicy())",
    "whole": "sum(1 for _ in av.open(file).decode(video=0))",
    "whole, in RGB": 'sum(frame.to_ndarray(format="rgb24").size for frame in av.open(file).decode(video=0))',
}
"""Ways of reading a clip: ours, decoding every frame, and that with the pixels, as readers of whole files do."""
SETTINGS: dict[str, Any] = {
    **{"max_steps": STEPS, "per_device_train_batch_size": PROMPTS * GENERATIONS, "num_generations": GENERATIONS},
    **{"max_completion_length": 24, "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no"},
    "disable_tqdm": True,
}
CHILD = """
import re, sys, time
from pathlib import Path
import av
from rlassay.config.data import ClipPolicy
from rlassay.data.clips import sample_frames
file = sys.argv[1]
def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = memory("VmRSS")
began, used = time.perf_counter(), time.process_time()
{read}
print(time.perf_counter() - began, time.process_time() - used, memory("VmHWM") - before, before)
"""


def write_long_clip(path: Path, minutes: float, key_every: int) -> None:
    """A clip of a moving gradient with B-frames; `key_every` frames from one key frame to the next."""
    gradient = np.add.outer(np.arange(HEIGHT) // 8, np.arange(WIDTH) // 8).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", key_every
        stream.codec_context.thread_count = 1
        for index in range(int(60 * minutes * FPS)):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            planes[:HEIGHT] = np.roll(gradient, 4 * index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def step_share(folder: Path) -> tuple[float, float]:
    """Seconds of a training step of the study `clips`, and of opening its frames in that step, both the median."""
    from trl.trainer.grpo_config import GRPOConfig

    from rlassay.models.policy import ChatFormat, build_policy
    from rlassay.training import CreditGRPOTrainer
    from rlassay.training.prompts import prompt_dataset

    section = MovingDigits(kind="moving_digits", splits={"train": STEPS * PROMPTS})
    rows = {row.prompt_id: row for row in load_rows(section, folder)}
    model, processor = build_policy(TinyVLM(kind="tiny_vlm", layers=2, patch_size=16), list(rows.values()))
    seconds: list[float] = []

    class Timed(StudyImages):
        def __call__(self, paths: Any) -> Any:
            began = time.perf_counter()
            opened = super().__call__(paths)
            seconds.append(time.perf_counter() - began)
            return opened

    trainer: Any = CreditGRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **columns: [float(index % 3) for index in range(len(completions))],
        args=GRPOConfig(output_dir=str(folder / "out"), **SETTINGS),
        train_dataset=prompt_dataset(
            rows, list(rows), ChatFormat(processor=processor, with_format_instruction=False), Timed(folder)
        ),
        processing_class=processor,
    )
    began = time.perf_counter()
    trainer.train()
    return (time.perf_counter() - began) / STEPS, sum(seconds) / STEPS


def main() -> None:
    """Print time and memory of each way of reading, then their ratios and the share of a step."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    key_every = int(sys.argv[2]) if len(sys.argv) > 2 else KEY_EVERY
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "long.mp4"
        write_long_clip(clip, minutes, key_every)
        used: dict[str, float] = {}
        for name, read in READERS.items():
            child = [sys.executable, "-c", CHILD.format(read=read), str(clip)]
            wall, used[name], more, before = map(float, subprocess.check_output(child, text=True).split())
            print(
                f"{name}: {wall:.2f} s, {used[name]:.2f} s of CPU, {more:.0f} MB more than the {before:.0f} MB before",
                flush=True,
            )
        step, opening = step_share(Path(folder))
    print(f"a training step of clips: {step:.2f} s, of which {1000 * opening:.1f} ms open frames")
    ratios = ", ".join(f"{used[name] / used['frames']:.0f}x less CPU than {name}" for name in list(READERS)[1:])
    print(f"8 frames of {minutes:g} minutes of 1080p, a key frame every {key_every} frames: {ratios}; "
          f"opening frames: {opening / step:.1%} of a training step")  # fmt: skip


if __name__ == "__main__":
    main()
