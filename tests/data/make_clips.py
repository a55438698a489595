"""Clips for tests: files in any container and codec whose frames differ in their grey level."""

import io
from fractions import Fraction

import av
import numpy as np

NUM_FRAMES = 40


def grey_frames(count=NUM_FRAMES, size=(32, 48)):
    """Frames of one grey level each, far enough apart for lossy codecs: 0, 6, 12, ..."""
    return [np.full((*size, 3), 6 * index % 256, dtype=np.uint8) for index in range(count)]


def write_clip(
    path, frames=None, *, codec="libx264", fmt=None, fps=10, pix_fmt="yuv420p", options=None, times=None, key_every=12
):
    """Write frames to a path, or to bytes if it is None; `times` are milliseconds of a variable frame rate."""
    frames = grey_frames() if frames is None else frames
    target = io.BytesIO() if path is None else str(path)
    with av.open(target, "w", format=fmt, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, key_every
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue() if path is None else path


def level(image):
    """Which of `grey_frames` an image shows."""
    return round(float(np.asarray(image).mean()) / 6)
