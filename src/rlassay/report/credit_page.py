"""How the credit viewer looks: classes that shade words, paths that tint images, thumbnails, rules that switch."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from markupsafe import Markup

from rlassay.report.content import Content, CreditWord, Heat, Scene, TokenCredit, WatchedCompletion
from rlassay.report.examples import thumbnail
from rlassay.report.typeset import number

STEPS = 5
"""Shades on either side of the weight 1, and above 0 for the other signals."""
NEUTRAL = 0.025
"""Weights nearer to 1 than this are not shaded."""
HEAT_STEPS = 8
"""Opacities of the tint over an image; what is nearer to 0 than to the first gets none."""
UNITS = {"weight": "", "perception": "nats", "entropy": "nats", "dominance": ""}
"""Signal -> unit; in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Shading:
    """Which shade a value of one signal gets."""

    signal: str
    """A key of `UNITS`."""
    top: float
    """The value from which on the strongest shade is used."""

    def level(self, value: float | None) -> int:
        """0 for no shade; up to `STEPS` for more, down to -`STEPS` for weights below 1."""
        if value is None:
            return 0
        if self.signal != "weight":
            return int(min(STEPS, value / self.top * STEPS)) if value > 0 else 0
        if abs(value - 1) < NEUTRAL:
            return 0
        reach = (value - 1) / (self.top - 1) if value > 1 else value - 1
        return int(np.sign(reach)) * min(STEPS, 1 + int(abs(reach) * STEPS))

    def css_class(self, value: float | None) -> str:
        """The class of that shade, such as `w3`, `w-2` or `p4`; empty for none."""
        level = self.level(value)
        return f"{self.signal[0]}{level}" if level else ""


def shadings(credit: TokenCredit) -> list[Shading]:
    """One for each signal that was measured, on one scale for all scenes and arms.

    The scale ends at the highest weight, but not below 1.5, and at the 95 % quantile of every other signal.
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
    """The class attribute of a word, one class per signal that shades it; empty where none does."""
    classes = " ".join(filter(None, (scale.css_class(getattr(word, scale.signal)) for scale in scales)))
    return Markup(' class="{}"').format(classes) if classes else Markup()


def heat_top(scene: Scene) -> float:
    """The highest attention on a cell in any arm: the arms of a scene share one scale."""
    return max((max(one.heat.cells) for one in scene.completions if one.heat is not None), default=0.0)


def heat_paths(heat: Heat, top: float) -> list[tuple[float, str]]:
    """Opacity -> path of all cells of that tint, in units of a cell; neighbours in a row are one rectangle."""
    levels = np.rint(np.array(heat.cells).reshape(heat.rows, heat.cols) / (top or 1.0) * HEAT_STEPS).astype(int)
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(levels):
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1), heat.cols]
        for start, end in pairwise(edges):
            if row[start] > 0:
                paths.setdefault(int(row[start]), []).append(f"M{start} {y}h{end - start}v1h{start - end}z")
    return [(opacity(level), "".join(found)) for level, found in sorted(paths.items())]


def opacity(level: int) -> float:
    """Opacity of one step of the tint."""
    return round(0.85 * level / HEAT_STEPS, 3)


def switch_rules(content: Content) -> str:
    """Style rules by which the radio buttons hide the scenes and the arms that were not asked for."""
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
    """Every number of a word in one line."""
    parts = [f"{word.num_tokens} token{'' if word.num_tokens == 1 else 's'}"]
    for signal, unit in UNITS.items():
        value = getattr(word, signal)
        parts += [] if value is None else [f"{signal} {number(value, 'value')} {unit}".rstrip()]
    return " · ".join(parts)


def weighted_text(completion: WatchedCompletion) -> str:
    """The completion with its weight behind each word, as `word(weight)`."""
    half = len(completion.words) // 2
    shown = [f"{word.before}{word.text}({number(word.weight, 'value')})" for word in completion.words]
    gap = [f" … {completion.omitted} words left out …"] if completion.omitted else []
    return "".join([*shown[:half], *gap, *shown[half:]])


def viewer_facts(content: Content, folder: Path) -> dict[str, object]:
    """What the templates need to draw the viewer; `folder` is the report folder."""
    credit = content.credit
    scenes = () if credit is None else credit.scenes
    images = sorted({scene.image for scene in scenes if scene.image is not None})
    return {
        "thumbnails": {path: thumbnail(folder / path) | {"id": f"seen-{k}"} for k, path in enumerate(images)},
        "shadings": [] if credit is None else shadings(credit),
        "shade_steps": STEPS,
        "heat_steps": [opacity(level) for level in range(HEAT_STEPS + 1)],
        "signal_units": UNITS,
        "word_classes": word_classes,
        "numbers_of": numbers_of,
        "heat_top": heat_top,
        "heat_paths": heat_paths,
        "places": {arm.name: place for place, arm in enumerate(content.arms)},
    }
