"""Appearance of the credit viewer: shades of words, tints over images, rules of switches."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from markupsafe import Markup

from rlassay.report.content import (
    Content,
    CreditWord,
    DocumentWord,
    Heat,
    ReadDocument,
    Scene,
    TokenCredit,
    WatchedCompletion,
)
from rlassay.report.typeset import counted, number, thumbnail

SHADES = 5
"""Shades for weights above 1, as many below 1, and for the other signals."""
UNSHADED = 0.025
"""A weight that differs less than this from 1 is not shaded."""
TINTS = 8
"""Number of opacities of the tint over an image, besides none; values are rounded to the nearest."""
UNITS = {"weight": "", "perception": "nats", "entropy": "nats", "dominance": ""}
"""Signal -> unit, in the order of the page."""


def viewer_variables(content: Content, folder: Path) -> dict[str, object]:
    """The variables of the viewer's templates; paths of images are relative to `folder`, the report folder."""
    credit = content.credit
    scenes = () if credit is None else credit.scenes
    images = {scene.image: max(1, len(scene.times)) for scene in scenes if scene.image is not None}
    return {
        "thumbnails": {
            path: thumbnail(folder / path, frames) | {"id": f"seen-{place}"}
            for place, (path, frames) in enumerate(sorted(images.items()))
        },
        "by_frame": by_frame,
        "shadings": [] if credit is None else shadings(credit),
        "num_shades": SHADES,
        "tints": [opacity(level) for level in range(1, TINTS + 1)],
        "signal_units": UNITS,
        "word_classes": word_classes,
        "numbers_of": numbers_of,
        "heat_top": heat_top,
        "heat_paths": heat_paths,
        "document_top": document_top,
        "document_class": document_class,
        "places": {arm.name: place for place, arm in enumerate(content.arms)},
    }


@dataclass(frozen=True, kw_only=True)
class Shading:
    """Scale of one signal: maps its values to shades."""

    signal: str
    """A key of `UNITS`."""
    top: float
    """This value and larger ones get the strongest shade."""

    def level(self, value: float | None) -> int:
        """The shade: 0 for none, up to `SHADES`; negative for weights below 1."""
        if value is None:
            return 0
        if self.signal != "weight":
            return int(min(SHADES, value / self.top * SHADES)) if value > 0 else 0
        if abs(value - 1) < UNSHADED:
            return 0
        reach = (value - 1) / (self.top - 1) if value > 1 else value - 1
        return int(np.sign(reach)) * min(SHADES, 1 + int(abs(reach) * SHADES))

    def css_class(self, value: float | None) -> str:
        """The CSS class of the shade, such as `w3`, `w-2` or `p4`; empty for none."""
        level = self.level(value)
        return f"{self.signal[0]}{level}" if level else ""


def shadings(credit: TokenCredit) -> list[Shading]:
    """The scale of each measured signal, shared by all scenes and arms.

    The scale of weights ends at the highest weight, but not below 1.5; that of another signal at its 95 % quantile.
    """
    words = [word for scene in credit.scenes for completion in scene.completions for word in completion.words]
    found: list[Shading] = []
    for signal in UNITS:
        seen = [value for word in words if (value := getattr(word, signal)) is not None]
        if seen:
            top = max(1.5, *seen) if signal == "weight" else float(np.quantile(seen, 0.95))
            found.append(Shading(signal=signal, top=top if top > 0 else 1.0))
    return found


def word_classes(word: CreditWord, scales: Iterable[Shading]) -> Markup:
    """The class attribute of a word: one class per signal that shades it; empty if none does."""
    classes = " ".join(filter(None, (scale.css_class(getattr(word, scale.signal)) for scale in scales)))
    return Markup(' class="{}"').format(classes) if classes else Markup()


def heat_top(scene: Scene) -> float:
    """The highest attention on a cell in any arm; the arms of a scene share this scale."""
    return max((max(one.heat.cells) for one in scene.completions if one.heat is not None), default=0.0)


def heat_paths(heat: Heat, top: float) -> list[tuple[float, str]]:
    """Pairs (opacity, path of all cells with that tint), in units of a cell; neighbours in a row are one rectangle."""
    levels = np.rint(np.array(heat.cells).reshape(heat.rows, heat.cols) / (top or 1.0) * TINTS).astype(int)
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(levels):
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1), heat.cols]
        for start, end in pairwise(edges):
            if row[start] > 0:
                paths.setdefault(int(row[start]), []).append(f"M{start} {y}h{end - start}v1h{start - end}z")
    return [(opacity(level), "".join(found)) for level, found in sorted(paths.items())]


def document_top(scene: Scene) -> float:
    """The highest attention on a word of the document in any arm; the arms of a scene share this scale."""
    documents = [one.document for one in scene.completions if one.document is not None]
    return max((word.attention for document in documents for word in document.words), default=0.0)


def document_class(attention: float, top: float) -> Markup:
    """The class attribute of a document's word, for its shade; empty for none.

    The shade is the word's share of `top`, rounded.
    """
    level = round(attention / (top or 1.0) * SHADES)
    return Markup(' class="a{}"').format(level) if level else Markup()


def by_frame(scene: Scene, heat: Heat) -> str:
    """Each frame's time and attention share, such as `0 s 1.2 %, 2.5 s –`; lines break after commas."""
    shares = ("–" if share is None else f"{number(share, 'share')} %" for share in heat.frames)
    pairs = zip(scene.times, shares, strict=True)
    return ", ".join(f"{time:g} s {share}".replace(" ", "\N{NO-BREAK SPACE}") for time, share in pairs)


def opacity(level: int) -> float:
    """Opacity of a tint, 0 to `TINTS`."""
    return round(0.85 * level / TINTS, 3)


def switch_rules(content: Content) -> str:
    """Style rules that hide the scenes and arms that the radio buttons do not select."""
    if content.credit is None:
        return ""
    scenes = [f"scene-{place}" for place in range(len(content.credit.scenes))]
    arms = [f"arm-{place}" for place in range(len(content.arms))]
    return "".join(
        f".viewer:has(#show-{name}:checked) .{kind}:not(.{name}){{display:none}}\n"
        for kind, names in (("scene", scenes), ("watched", arms))
        for name in names
    )


def numbers_of(word: CreditWord) -> str:
    """All numbers of a word on one line."""
    parts = [counted(word.num_tokens, "token")]
    for signal, unit in UNITS.items():
        value = getattr(word, signal)
        parts += [] if value is None else [f"{signal} {number(value, 'value')} {unit}".rstrip()]
    return " · ".join(parts)


def most_attended(document: ReadDocument, count: int = 5) -> list[DocumentWord]:
    """The words of a document with the most attention, most first."""
    return sorted(document.words, key=lambda word: -word.attention)[:count]


def weighted_text(completion: WatchedCompletion) -> str:
    """The completion with the weight after each word, as `word(weight)`."""
    half = len(completion.words) // 2
    shown = [f"{word.before}{word.text}({number(word.weight, 'value')})" for word in completion.words]
    gap = [f" … {completion.omitted} words left out …"] if completion.omitted else []
    return "".join([*shown[:half], *gap, *shown[half:]])
