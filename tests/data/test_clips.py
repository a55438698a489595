"""Frames of clips: how many, which, and that decoding gives these frames and no others."""

import io
import tracemalloc
from collections import deque
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rlassay.config.data import ClipPolicy
from rlassay.data import clips
from rlassay.data.clips import encode_clip, frame_count, frame_indices, sample_frames
from rlassay.data.raw_examples import RowRejectedError
from rlassay.images import StudyImages, frame_path
from rlassay.records import FrameSampling
from tests.data.make_clips import NUM_FRAMES, grey_frames, level, write_clip

EVERY = ClipPolicy(base_interval=0.5)
"""40 frames at 10 per second last 4 seconds: 8 frames, at 0, 39/7, 78/7, ..."""
EIGHT = [0, 5, 11, 16, 22, 27, 33, 39]
B_FRAMES = {"bf": "3", "refs": "3", "b-pyramid": "normal"}


def reference_choice(duration, num_frames, policy, meta):
    """Indices of the frames, written out in another way: exact fractions in place of numpy."""
    low, high, dynamic = policy["low"], policy["high"], True
    if meta:
        low, high, dynamic = meta["min_frames"], meta["max_frames"], meta["dynamic_sample"]
    wanted = high
    if dynamic:
        wanted = sorted([low, int(np.rint(duration / policy["interval"])), high])[1]
    if wanted == 1:
        return [0]
    return sorted(
        {int(np.float64(step) * (np.float64(num_frames - 1) / (wanted - 1))) for step in range(wanted - 1)}
        | {num_frames - 1}
    )


def test_frame_choice_equals_an_independent_computation_on_200_random_cases():
    rng = np.random.default_rng(5)
    for case in range(200):
        fps, num_frames = float(rng.choice([7.5, 23.976, 25, 29.97, 60])), int(rng.integers(1, 900))
        low = int(rng.integers(1, 9))
        interval = float(rng.uniform(0.2, 4))
        policy = {"low": low, "high": low + int(rng.integers(0, 9)), "interval": interval}
        meta = None
        if case % 3:
            least = int(rng.integers(1, 7))
            most = least + int(rng.integers(0, 7))
            meta = {"min_frames": least, "max_frames": most, "dynamic_sample": bool(case % 5)}
        section = ClipPolicy(
            min_frames=policy["low"],
            max_frames=policy["high"],
            **({"video_fps": 1 / interval} if case % 2 else {"base_interval": interval}),
        )
        of_record = None if meta is None else FrameSampling(frame_cnts=(9,), **meta)
        found = frame_indices(num_frames, frame_count(num_frames / fps, section, of_record))
        assert found == reference_choice(num_frames / fps, num_frames, policy, meta), (
            case,
            num_frames,
            fps,
            policy,
            meta,
        )


def test_frame_counts_by_hand():
    # 9 s at one frame every 2 s: 4.5 rounds to the even 4; 11 s: 5.5 to 6.
    assert [frame_count(seconds, ClipPolicy(), None) for seconds in (0.1, 9.0, 11.0, 60.0)] == [4, 4, 6, 8]
    assert frame_count(11.0, ClipPolicy(video_fps=0.25), None) == 4  # 2.75 -> 3, raised to min_frames
    short = FrameSampling(frame_cnts=(3, 2), min_frames=2, max_frames=5)
    assert [frame_count(seconds, ClipPolicy(), short) for seconds in (1.0, 7.0, 60.0)] == [2, 4, 5]
    fixed = short.model_copy(update={"dynamic_sample": False})
    assert frame_count(1.0, ClipPolicy(), fixed) == 5
    # Without a limit of its own, a record that wants a fixed number gets the study's most.
    assert frame_count(1.0, ClipPolicy(max_frames=7), FrameSampling(dynamic_sample=False)) == 7
    # A record may state one limit alone, over the study's 4 to 8 frames.
    few, many = FrameSampling(max_frames=2), FrameSampling(min_frames=10)
    assert [frame_count(seconds, ClipPolicy(), few) for seconds in (1.0, 60.0)] == [2, 2]
    assert [frame_count(seconds, ClipPolicy(), many) for seconds in (1.0, 60.0)] == [10, 10]
    assert [frame_count(seconds, ClipPolicy(), FrameSampling(min_frames=6)) for seconds in (1.0, 60.0)] == [6, 8]
    assert frame_indices(10, 4) == [0, 3, 6, 9]
    assert frame_indices(3, 8) == [0, 1, 2]  # a clip shorter than the frames asked for shows all of them


CONTAINERS = {
    "mp4": {"codec": "libx264", "options": B_FRAMES},
    "mov": {"codec": "libx264", "options": B_FRAMES},
    "mkv": {"codec": "libx264", "options": B_FRAMES},
    "webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    # FFmpeg numbers its packets in place of times, and without cuts there are B-frames.
    "h264.avi": {"codec": "libx264", "options": B_FRAMES | {"sc_threshold": "0"}},
    "ts": {"codec": "libx264", "options": B_FRAMES},
    "gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "ogv": {"codec": "libx264", "fmt": "matroska"},  # a wrong name, as files of users have
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_gives_the_frames_asked_for(tmp_path, suffix):
    file = write_clip(tmp_path / f"clip.{suffix}", **CONTAINERS[suffix])
    shown = sample_frames(file, EVERY)
    with av.open(str(file)) as container:  # every frame, decoded in order
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(every) == NUM_FRAMES
    for index, image in zip(EIGHT, shown.images, strict=True):
        assert np.array_equal(every[index], image)
    assert shown.duration == pytest.approx(4, abs=0.02)
    assert shown.times[0] == 0
    assert shown.times[-1] == pytest.approx(3.9, abs=0.02)
    assert shown.fps == pytest.approx(10, abs=0.1)


def test_containers_and_threads_change_no_pixel(tmp_path):
    files = [write_clip(tmp_path / f"clip.{suffix}", options=B_FRAMES) for suffix in ("mp4", "mov", "mkv")]
    pixels = [[image.tobytes() for image in sample_frames(file, EVERY).images] for file in files]
    for threads in (2, 4):
        pixels.append([image.tobytes() for image in sample_frames(files[0], EVERY, threads=threads).images])
    pixels.append([image.tobytes() for image in sample_frames(files[0].read_bytes(), EVERY).images])
    assert all(each == pixels[0] for each in pixels)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "ts"])
def test_only_the_frames_between_a_key_frame_and_its_target_are_decoded(tmp_path, monkeypatch, suffix):
    settings = CONTAINERS[suffix] | {"options": CONTAINERS[suffix]["options"] | {"sc_threshold": "0"}}
    file = write_clip(tmp_path / f"long.{suffix}", grey_frames(40) * 5, key_every=20, **settings)
    decoded = []

    class Counting(deque):
        def extend(self, frames):
            frames = list(frames)
            decoded.extend(frame.pts for frame in frames)
            super().extend(frames)

    monkeypatch.setattr(clips, "deque", Counting)
    shown = sample_frames(file, ClipPolicy(min_frames=4, max_frames=4))
    assert [level(frame) for frame in shown.images] == [0, 66 - 40, 132 - 120, 199 - 160]
    # Key frames are 20 apart: frames 0, 60-66, 120-132 and 180-199 are 41, less those to which no frame refers, and the
    # decoder may be three ahead. Beginning one key frame too early adds 18 and more.
    assert len(decoded) <= 41 + 4 * 3
    assert len(decoded) == len(set(decoded))


def test_seeking_is_exact_where_sequential_reading_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "_read_frames", lambda *args: pytest.fail("read from the start"))
    for suffix in ("mp4", "mkv", "webm", "ts"):
        file = write_clip(tmp_path / f"clip.{suffix}", **CONTAINERS[suffix])
        found = sample_frames(file, ClipPolicy(base_interval=0.1, max_frames=NUM_FRAMES))
        assert [level(image) for image in found.images] == list(range(NUM_FRAMES))


def test_variable_rate_odd_sizes_deep_colours_and_limits_on_pixels(tmp_path):
    times = [index * 100 if index < 20 else 2000 + (index - 20) * 400 for index in range(NUM_FRAMES)]
    shown = sample_frames(write_clip(tmp_path / "v.mp4", times=times, fps=10), ClipPolicy(base_interval=2))
    # The last frame comes after 9.6 s, 10 s with the mean distance of 246 ms: 9.85 / 2 rounds to 5 frames.
    assert shown.duration == pytest.approx(9.85, abs=0.01)
    assert [level(image) for image in shown.images] == [0, 9, 19, 29, 39]
    assert shown.times == pytest.approx((0, 0.9, 1.9, 5.6, 9.6))
    odd = write_clip(tmp_path / "odd.mkv", grey_frames(size=(31, 47)), codec="ffv1", pix_fmt="bgr0")
    assert sample_frames(odd, EVERY).images[0].size == (47, 31)
    deep = write_clip(tmp_path / "deep.mp4", codec="libx264", pix_fmt="yuv420p10le")
    assert [level(image) for image in sample_frames(deep, EVERY).images] == EIGHT
    small = ClipPolicy(base_interval=0.5, max_pixels=400)
    assert sample_frames(odd, small).images[0].size == (24, 16)  # x sqrt(400 / 1457) = .524, rounded down


@pytest.mark.parametrize(("clockwise", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))])
def test_a_rotation_flag_turns_the_frames(clockwise, matrix):
    frames = [np.zeros((16, 32, 3), dtype=np.uint8) for _ in range(4)]
    for frame in frames:
        frame[:8, :16] = 255  # top left
    content = write_clip(None, frames, codec="libx264rgb", fmt="mp4", pix_fmt="rgb24", options={"qp": "0"})
    upright = np.asarray(sample_frames(content, ClipPolicy()).images[0])
    assert upright.shape == (16, 32, 3)

    def of_header(a, b, c, d):
        """The matrix (a, b, u, c, d, v, x, y, w) of a header, of fixed-point numbers."""
        a, b, c, d = ((number << 16).to_bytes(4, "big", signed=True) for number in (a, b, c, d))
        return a + b + bytes(4) + c + d + bytes(12) + (1 << 30).to_bytes(4, "big")

    identity = of_header(1, 0, 0, 1)
    assert content.count(identity) == 2  # the header of the film, then that of its track
    at = content.rindex(identity)
    flagged = content[:at] + of_header(*matrix) + content[at + 36 :]
    turned = np.asarray(sample_frames(flagged, ClipPolicy()).images[0])
    # The white corner goes from the top left to the top right, the bottom right, the bottom left.
    assert np.array_equal(turned, np.rot90(upright, -clockwise // 90))


def rejection(clip):
    with pytest.raises(RowRejectedError) as rejected:
        sample_frames(clip, EVERY)
    return str(rejected.value)


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.95, 0.99])
def test_a_part_of_a_file_is_rejected_in_every_container(tmp_path, suffix, share):
    file = Path(write_clip(tmp_path / f"whole.{suffix}", **CONTAINERS[suffix]))
    content = file.read_bytes()
    assert len(sample_frames(file, EVERY).images) == 8
    kept = int(share * len(content))
    kept += suffix == "ts" and kept % 188 == 0  # a cut between two packets cannot be seen
    file.write_bytes(content[:kept])
    assert rejection(file) == rejection(content[:kept])
    assert rejection(file) in ("video: it is truncated", "video: it cannot be decoded")


def as_live_stream(content):
    """The same packets in a WebM file of unknown size."""
    target = io.BytesIO()
    target.seekable = lambda: False
    with av.open(io.BytesIO(content)) as source, av.open(target, "w", format="webm") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target.getvalue()


def test_the_last_bytes_count_where_their_header_comes_first(tmp_path):
    path = tmp_path / "front.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in grey_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    front = path.read_bytes()
    assert front.index(b"moov") < front.index(b"mdat")
    assert len(sample_frames(front, EVERY).images) == 8
    assert {rejection(front[:-cut]) for cut in (1, 30, len(front) // 20)} == {"video: it is truncated"}


def test_a_live_stream_that_states_no_size_is_read():
    live = as_live_stream(write_clip(None, fmt="webm", **CONTAINERS["webm"]))
    assert len(sample_frames(live, EVERY).images) == 8


@pytest.mark.parametrize("after", [bytes(64), b"a note of the camera that is no box of an mp4"])
def test_an_mp4_may_be_followed_by_other_bytes(after):
    assert len(sample_frames(write_clip(None, fmt="mp4") + after, EVERY).images) == 8


def test_a_title_need_not_be_utf8(tmp_path):
    with av.open(str(tmp_path / "titled.mkv"), "w") as container:
        container.metadata["title"] = "Caf_"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in grey_frames(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "titled.mkv").read_bytes().replace(b"Caf_", "Café".encode("latin-1"))
    assert len(sample_frames(content, EVERY).images) == 4


def test_a_gif_may_be_padded(tmp_path):
    content = write_clip(None, fmt="gif", **CONTAINERS["gif"])
    assert len(sample_frames(content + bytes(20), EVERY).images) == 8


def test_damaged_files_are_rejected_with_a_reason(tmp_path):
    mp4 = write_clip(tmp_path / "whole.mp4", options=B_FRAMES).read_bytes()
    mkv = write_clip(tmp_path / "whole.mkv", options=B_FRAMES).read_bytes()
    empty = io.BytesIO()
    with av.open(empty, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width = stream.height = 16
    sound = io.BytesIO()
    with av.open(sound, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    assert rejection(mp4[: len(mp4) // 2]) == "video: it cannot be decoded"
    assert rejection(mkv[: len(mkv) // 2]) == "video: it is truncated"
    assert rejection(b"") == "video: it cannot be decoded"
    assert rejection(b"no clip at all" * 99) == "video: it cannot be decoded"
    assert rejection(empty.getvalue()).startswith("video: it ")
    assert rejection(sound.getvalue()) == "video: it has no video stream"
    assert rejection(picture.getvalue()) == "video: it cannot be decoded"
    # A playlist would read a file that the record may not name.
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:4,\n{tmp_path / 'whole.mp4'}\n")
    assert rejection(tmp_path / "list.m3u8") == "video: it cannot be decoded"
    broken = bytearray(mp4)
    broken[200:2000] = bytes(1800)
    with suppress(RowRejectedError):  # a decoder may conceal damage within a frame, but raises nothing else
        sample_frames(bytes(broken), EVERY)


def test_a_strip_holds_the_frames_side_by_side(tmp_path):
    clip = encode_clip(write_clip(tmp_path / "clip.mp4").name, tmp_path, EVERY)
    (tmp_path / "strip.png").write_bytes(clip.strip)
    direct = sample_frames(tmp_path / "clip.mp4", EVERY).images
    opened = StudyImages(tmp_path)(frame_path("strip.png", index, 8) for index in range(8))
    for one, other, third in zip(direct, opened, clip.frames, strict=True):
        assert one.tobytes() == other.tobytes() == third.tobytes()
    again = StudyImages(tmp_path)
    assert again([frame_path("strip.png", 3, 8)])[0] is again([frame_path("strip.png", 3, 8)])[0]


def test_memory_is_bounded_by_the_frames_kept(tmp_path):
    file = write_clip(tmp_path / "wide.mp4", [np.full((360, 640, 3), 9, np.uint8)] * 90, fps=30)
    tracemalloc.start()
    sample_frames(file, ClipPolicy(min_frames=2, max_frames=2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 360 * 640 * 3  # 90 frames would take 90 times 691 kB
