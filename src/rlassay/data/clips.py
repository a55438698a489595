"""Video clips: choose the frames to show, decode only these, store a film strip."""

import io
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from PIL import Image

from rlassay.config.data import ClipPolicy, ImagePolicy
from rlassay.data.containers import is_whole
from rlassay.data.images import resized, resolve_below
from rlassay.data.raw_examples import LONGEST_DETAIL, RowRejectedError
from rlassay.files import sha256, sha256_of
from rlassay.images import split_strip
from rlassay.records import FrameSampling, Media

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,ogg,flv,asf"
"""Containers that are read. Others, such as playlists, may make the decoder read further files."""
MOST_PIXELS = 80_000_000
"""Most pixels of a clip's frames together; Pillow takes larger images for decompression bombs."""
TRUNCATED = 0.05
"""Share of its stated length that a clip may lack. One whose frames end earlier is truncated."""
ClipKey = tuple[str, FrameSampling | None]
"""SHA-256 of a clip's file, and the record's own choice of frames. In a study, equal keys have equal film strips."""
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
"""Counter-clockwise degrees of the rotation flag, modulo 360 -> how frames are turned for display."""


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """The frames of a clip that are shown, as they will be stored."""

    digest: str
    """SHA-256 of the clip's file, in hex."""
    path: str | None
    """Path of its file; None if the study has to keep `content`."""
    content: bytes
    """The clip's file, where the source gave no path."""
    strip: bytes
    """A PNG with the frames side by side."""
    media: Media
    """Facts about the clip, without paths."""

    @cached_property
    def frames(self) -> list[Image.Image]:
        """The frames that are shown."""
        return split_strip(Image.open(io.BytesIO(self.strip)).convert("RGB"), len(self.media.times))


@dataclass(frozen=True, kw_only=True)
class SampledFrames:
    """Decoded frames of a clip."""

    images: tuple[Image.Image, ...]
    """The frames in RGB, upright, all of one size."""
    times: tuple[float, ...]
    """Seconds from the first frame of the clip to each of them."""
    duration: float
    """Length of the clip, seconds."""
    fps: float
    """Its frames per second, on average."""


def frame_count(duration: float, policy: ClipPolicy, meta: FrameSampling | None) -> int:
    """How many frames to show: `n = clip(round(duration / base_interval), min_frames, max_frames)`.

    Each limit is that of the record's `meta`, else the policy's; where these cross, the record's holds. A `meta` with
    `dynamic_sample: false` asks for its `max_frames`. With `video_fps` in the policy, `base_interval` is
    `1 / video_fps`.

    Args:
        duration: length of the clip, seconds.
        policy: the study's choice.
        meta: the record's own choice.

    Source: `data_qwen.py` of ChristianLin0420/Qwen2.5-VL-Video. Departure: there no code reads `meta`.
    """
    meta = meta or FrameSampling()
    low, high = meta.min_frames or policy.min_frames, meta.max_frames or policy.max_frames
    low, high = (low, max(low, high)) if meta.max_frames is None else (min(low, high), high)
    if not meta.dynamic_sample:
        return high
    interval = policy.base_interval if policy.video_fps is None else 1 / policy.video_fps
    return min(max(round(duration / interval), low), high)


def frame_indices(num_frames: int, count: int) -> list[int]:
    """Indices of `count` frames out of `num_frames`, evenly spaced from the first to the last; fewer if it has fewer.

    `unique(int(linspace(0, num_frames - 1, count)))`, as in the source of `frame_count`.
    """
    return [int(index) for index in np.unique(np.linspace(0, num_frames - 1, count).astype(np.int64))]


def encode_clip(
    video: str | bytes,
    root: Path | None,
    policy: ClipPolicy,
    meta: FrameSampling | None = None,
    known: Callable[[ClipKey], tuple[Media, bytes] | None] = lambda key: None,
) -> EncodedClip:
    """The frames that the policy and the record's `meta` ask for, as a film strip.

    Args:
        video: path below `root`, or the content of a file.
        root: the folder that a path may not leave; None rejects paths.
        policy: how many frames, and their size.
        meta: the record's own choice of frames.
        known: facts and film strip of a clip that was decoded before, by its content and `meta`; None to decode it.

    Errors: RowRejectedError with the reason.
    """
    path = None if isinstance(video, bytes) else resolve_below(video, root, "video")
    content = video if isinstance(video, bytes) else b""
    digest = sha256_of(content) if path is None else sha256(path)
    try:
        media, strip = known((digest, meta)) or _decoded(path or content, policy, meta)
    except RowRejectedError as rejected:
        rejected.detail = ": ".join(filter(None, (path and str(path), rejected.detail)))[:LONGEST_DETAIL]
        raise
    return EncodedClip(
        digest=digest, path=None if path is None else str(path), content=content, strip=strip, media=media
    )


def _decoded(clip: Path | bytes, policy: ClipPolicy, meta: FrameSampling | None) -> tuple[Media, bytes]:
    """Facts about a clip, and its film strip, by decoding it."""
    sampled = sample_frames(clip, policy, meta)
    pixels = sum(image.width * image.height for image in sampled.images)
    if pixels > MOST_PIXELS:
        raise RowRejectedError(f"video: its frames have more than {MOST_PIXELS} pixels together; set clips.max_pixels")
    strip = Image.fromarray(np.concatenate([np.asarray(image) for image in sampled.images], axis=1))
    encoded = io.BytesIO()
    strip.save(encoded, format="PNG")
    media = Media(kind="video", path="", frames=meta, times=sampled.times, duration=sampled.duration, fps=sampled.fps)
    return media, encoded.getvalue()


def sample_frames(
    clip: Path | bytes, policy: ClipPolicy, meta: FrameSampling | None = None, *, threads: int = 1
) -> SampledFrames:
    """Decode the shown frames of a clip, and only the packets that they need.

    The packets are listed without decoding; then each frame is decoded from the last key frame before it. Memory holds
    the frames that are shown and one more.

    Args:
        clip: the file, or its content.
        policy: how many frames, and their size.
        meta: the record's own choice of frames.
        threads: threads of the decoder; the frames do not depend on it.

    Errors: RowRejectedError with the reason for a file that is no clip, damaged, truncated or empty.
    """
    with _opened(clip, threads) as (container, stream):
        if not is_whole(clip, container.format.name):
            raise RowRejectedError("video: it is truncated")
        listing = _listing(container, stream)
    if listing is None:  # some containers state no time of presentation: every frame has to be decoded
        with _opened(clip, threads) as (container, stream):
            listing = _decoded_listing(container, stream)
    chosen = frame_indices(len(listing.times), frame_count(listing.duration, policy, meta))
    targets = {index: listing.times[index] for index in chosen}
    found = _found_frames(clip, policy, listing, targets, threads)
    if len(found) < len(targets):
        raise RowRejectedError("video: a frame cannot be decoded")
    images = [found[target] for target in targets.values()]
    return SampledFrames(
        images=tuple(image if image.size == images[0].size else image.resize(images[0].size) for image in images),
        times=tuple(round((target - listing.times[0]) * listing.unit, 3) for target in targets.values()),
        duration=listing.duration,
        fps=round(len(listing.times) / listing.duration, 3) if listing.duration else 0.0,
    )


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The frames of a clip, before they are decoded."""

    times: list[int]
    """When each frame is shown, in units of the stream, ascending."""
    keys: list[tuple[int, int]]
    """Of each key frame, when it is shown and when it is decoded, ascending."""
    unit: float
    """Seconds of a unit of time of the stream."""
    duration: float
    """Seconds, computed from the times alone, not from the container."""
    in_coding_order: bool = False
    """Whether the file states only the coding order. A frame is then known by its place, not its time."""


@contextmanager
def _opened(clip: Path | bytes, threads: int) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    """The opened clip and its video stream; errors of the decoder become RowRejectedError."""
    try:
        source = io.BytesIO(clip) if isinstance(clip, bytes) else str(clip)
        allowed = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        # Titles of older programs are no UTF-8; no title is read here.
        with av.open(source, "r", options=allowed, metadata_errors="replace") as container:
            if not container.streams.video:
                raise RowRejectedError("video: it has no video stream")
            stream = container.streams.video[0]
            decoder: Any = stream.codec_context
            if decoder is None:  # a damaged header names no codec that is known
                raise RowRejectedError("video: it has no known codec")
            if stream.width * stream.height > MOST_PIXELS:
                raise RowRejectedError(f"video: a frame of more than {MOST_PIXELS} pixels")
            stream.codec_context.thread_count = threads
            yield container, stream
    except (FFmpegError, EOFError, IndexError, OSError) as error:
        rejected = RowRejectedError("video: it cannot be decoded")
        reason = getattr(error, "strerror", None) or str(error)  # `str` of FFmpeg's errors begins with a long number
        rejected.detail = " ".join(reason.split())[:LONGEST_DETAIL]
        raise rejected from error


def _listing(container: InputContainer, stream: VideoStream) -> _Listing | None:
    """The listing of a clip from its packets; None if some do not say when they are shown."""
    # Of each packet three numbers are kept: a list of packets would hold the whole file in memory.
    times: list[int] = []
    keys: list[tuple[int, int]] = []
    last = 0
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            return None
        times.append(packet.pts)
        last = packet.duration or 0
        if packet.is_keyframe:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    # AVI states no times. FFmpeg derives them from the order of some codecs' frames, and for H.264 numbers the packets.
    coded = container.format.name == "avi" and stream.codec_context.has_b_frames and times == sorted(times)
    times = sorted(set(times))
    _check_whole(container, stream, times, last)
    unit, duration = _unit(stream), _duration(times, stream)
    return _Listing(times=times, keys=sorted(keys), unit=unit, duration=duration, in_coding_order=coded)


def _decoded_listing(container: InputContainer, stream: VideoStream) -> _Listing:
    """The listing of a clip from its frames, which are decoded and dropped."""
    times = sorted({frame.pts for frame in container.decode(stream) if frame.pts is not None})
    _check_whole(container, stream, times, 0)
    return _Listing(times=times, keys=[], unit=_unit(stream), duration=_duration(times, stream))


def _check_whole(container: InputContainer, stream: VideoStream, times: Sequence[int], last: int) -> None:
    """Raise RowRejectedError for a clip without frames, or one that ends too early.

    Too early is much earlier than its header states.
    """
    if not times:
        raise RowRejectedError("video: it has no frames")
    unit = _unit(stream)
    stated = (stream.duration or 0) * unit
    if not stated and len(container.streams) == 1:
        stated = (container.duration or 0) / av.time_base
    shown = max(last * unit, _duration(times, stream) / len(times)) + (times[-1] - times[0]) * unit
    if shown < (1 - TRUNCATED) * stated - 2 * _duration(times, stream) / len(times):
        raise RowRejectedError("video: it is truncated")


def _unit(stream: VideoStream) -> float:
    """Seconds of a unit of time of the stream."""
    return float(stream.time_base or 1)


def _duration(times: Sequence[int], stream: VideoStream) -> float:
    """Seconds from the first frame to the end of the last one.

    The last one is shown as long as the others on average.
    """
    unit, count = _unit(stream), len(times)
    if count > 1:
        return round((times[-1] - times[0]) * unit * count / (count - 1), 2)
    return round(float(1 / stream.average_rate), 2) if stream.average_rate else 0.0


def _found_frames(
    clip: Path | bytes, policy: ClipPolicy, listing: _Listing, targets: dict[int, int], threads: int
) -> dict[int, Image.Image]:
    """The frames that can be decoded, by their times; `targets` are place -> time."""
    with _opened(clip, threads) as (container, stream):
        if listing.in_coding_order:
            return _nth_frames(container, stream, targets, policy)
        found = _seek_frames(container, stream, list(targets.values()), listing.keys, policy)
    missing = [time for time in targets.values() if time not in found]
    if missing:
        with _opened(clip, threads) as (container, stream):
            found |= _read_frames(container, stream, missing, policy)
    return found


def _seek_frames(
    container: InputContainer,
    stream: VideoStream,
    targets: Sequence[int],
    keys: Sequence[tuple[int, int]],
    policy: ClipPolicy,
) -> dict[int, Image.Image]:
    """The frames at the target times, each decoded from the last key frame before it; misses are left out."""
    found: dict[int, Image.Image] = {}
    shown = [pts for pts, _ in keys]
    packets: Iterator[Any] = iter(())
    decoded: deque[Any] = deque()
    at = -1  # index of the key frame that decoding began from
    for target in targets:
        key = bisect_right(shown, target) - 1
        if key < 0:
            continue
        if key > at:
            packets, decoded, at = _packets_from(container, stream, keys[key]), deque[Any](), key
        frame = _first_from(target, packets, decoded, stream.codec_context)
        if frame is not None and frame.pts == target and not frame.is_corrupt:
            found[target] = _image(frame, policy)
    return found


def _packets_from(container: InputContainer, stream: VideoStream, key: tuple[int, int]) -> Iterator[Any]:
    """The packets from a key frame on, or an earlier one if seeking is inexact.

    Some containers seek by the time of presentation, others by that of decoding: with the wrong one, mp4 with B-frames
    seeks to one key frame too early, and others seek too late.
    """
    packets: Iterator[Any] = iter(())
    for time in key:
        with suppress(FFmpegError):
            container.seek(time, stream=stream)
            packets = container.demux(stream)
            first = next(packets)
            packets = chain([first], packets)
            if first.pts == key[0]:
                break
    return packets


def _first_from(target: int, packets: Iterator[Any], decoded: deque[Any], codec: Any) -> Any:
    """The first frame from a time on, None at the end; those before it to which no frame refers are not decoded."""
    while True:
        while decoded:
            frame = decoded.popleft()
            if frame.pts is not None and frame.pts >= target:
                return frame
        packet = next(packets, None)
        if packet is None:
            return None
        codec.skip_frame = "NONREF" if packet.pts is not None and packet.pts < target else "DEFAULT"
        decoded.extend(packet.decode())


def _read_frames(
    container: InputContainer, stream: VideoStream, targets: Sequence[int], policy: ClipPolicy
) -> dict[int, Image.Image]:
    """The frames at the target times, by decoding from the start of the clip."""
    wanted, last = set(targets), max(targets)
    found: dict[int, Image.Image] = {}
    for frame in container.decode(stream):
        if frame.pts in wanted and not frame.is_corrupt:
            found[frame.pts] = _image(frame, policy)
        if len(found) == len(wanted) or (frame.pts or 0) > last:
            break
    return found


def _nth_frames(
    container: InputContainer, stream: VideoStream, targets: dict[int, int], policy: ClipPolicy
) -> dict[int, Image.Image]:
    """The frames at the target times, each known by its place among the shown ones."""
    shown = islice(container.decode(stream), max(targets) + 1)
    wanted = ((targets[place], frame) for place, frame in enumerate(shown) if place in targets)
    return {time: _image(frame, policy) for time, frame in wanted if not frame.is_corrupt}


def _image(frame: av.VideoFrame, policy: ClipPolicy) -> Image.Image:
    """A frame in RGB as it is displayed, within the policy's limits on pixels."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = _TURNS.get(round(frame.rotation) % 360)
    upright = image if turn is None else image.transpose(turn)
    most = max(MOST_PIXELS, policy.min_pixels or 0)
    limits = ImagePolicy(max_side=most, min_pixels=policy.min_pixels, max_pixels=policy.max_pixels)
    return resized(upright, limits)
