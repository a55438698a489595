# pyright: basic
# matplotlib types its methods only in part, so strict mode would report every call that draws.
"""Style of all figures: palette, fonts, and SVG legible on light and dark paper.

Every colour is a plain SVG attribute with its value for light paper, and a short style sheet replaces the known values
on dark paper. So the same drawing works as a separate file and inside the page, without inline styles.
"""

import io
import re
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

LIGHT_PAPER, DARK_PAPER = "#fffdf9", "#17181b"
INK, SOFT, HAIR = "#211f1c", "#68635b", "#dedad2"
ON_DARK = {INK: "#e8e5df", SOFT: "#a8a298", HAIR: "#36373c", LIGHT_PAPER: DARK_PAPER}
# Colour-blind readers can distinguish the first colours, and every arm also has its own marker.
PALETTE = ("#1a6fb5", "#c2500a", "#0f7f5f", "#97418f", "#8a6a00", "#1d93a8", "#b02a55", "#5f7a1c")
# matplotlib's marker -> the same shape as an SVG path in a 14 x 14 box, for the legend of the page.
MARKERS = {
    "o": "M7 2.5a4.5 4.5 0 1 0 .01 0z",
    "s": "M3 3h8v8H3z",
    "D": "M7 1.5 12.5 7 7 12.5 1.5 7z",
    "^": "M7 2 12 11H2z",
    "v": "M7 12 2 3h10z",
    "P": "M5.2 2h3.6v3.2H12v3.6H8.8V12H5.2V8.8H2V5.2h3.2z",
    "X": "M4.3 2 7 4.7 9.7 2 12 4.3 9.3 7 12 9.7 9.7 12 7 9.3 4.3 12 2 9.7 4.7 7 2 4.3z",
    "p": "M7 2l5 3.6-1.9 5.9H3.9L2 5.6z",
}
NEUTRAL = "#4c535d"
"""Colour of policies without RL."""
CONTRAST = 3.2
"""Least contrast of a mark on paper; WCAG asks for 3."""
DARK_CONTRAST = 5.0
"""Least contrast on dark paper, where thin lines look fainter."""

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
STYLE = {
    "svg.hashsalt": "rlassay",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.dpi": 72,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": HAIR,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": HAIR,
    "grid.linewidth": 0.8,
    "xtick.color": HAIR,
    "ytick.color": HAIR,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


TITLE_FROM_TOP = 13
"""Pixels from the upper edge to the middle of a title."""
ALT_LENGTH = 600
"""Characters of the text for readers who do not see a figure."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Name, colour and marker of one table row, the same in all figures."""

    label: str
    """Name on the page."""
    color: str
    """Colour on light paper, `#rrggbb`."""
    marker: str
    """matplotlib's marker."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One finished figure."""

    name: str
    """File name without the ending."""
    part: str
    """Part of the page that shows it."""
    alt: str
    """Its numbers as text, for readers who do not see it."""
    svg: str
    """The `<svg>` element without a style sheet, to be put into a page."""


def contrast(color: str, paper: str) -> float:
    """Contrast ratio of two colours, 1 to 21. Source: WCAG 2.2, section 1.4.3."""
    bright, dim = sorted((_luminance(color), _luminance(paper)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(color: str) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def readable(color: str, paper: str, ratio: float = CONTRAST) -> str:
    """`color`, mixed with white or black until its contrast with `paper` reaches `ratio`.

    It is mixed in small steps.
    """
    towards = 1.0 if _luminance(paper) < 0.2 else 0.0
    for step in range(21):
        red, green, blue = (part + (towards - part) * step / 20 for part in to_rgb(color))
        mixed = to_hex((red, green, blue))
        if contrast(mixed, paper) >= ratio:
            return mixed
    raise ValueError(f"no mix of {color} with white or black has a contrast of {ratio} on {paper}")


def dark_rules(colors: Iterable[str], prefix: str = "") -> str:
    """Style rules that give every known colour its value on dark paper."""
    pairs = {**{color: readable(color, DARK_PAPER, DARK_CONTRAST) for color in sorted(set(colors))}, **ON_DARK}
    return "\n".join(
        f'{prefix}[fill="{light}"]{{fill:{dark}}}{prefix}[stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in pairs.items()
    )


def standalone(drawing: Drawing, colors: Iterable[str]) -> str:
    """The drawing as an SVG file's text, which follows the reader's light or dark setting."""
    opening = drawing.svg.index(">") + 1
    rules = f"<style>@media (prefers-color-scheme: dark){{{dark_rules(colors)}}}</style>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n{drawing.svg[:opening]}{rules}{drawing.svg[opening:]}\n'


@contextmanager
def house_style() -> Generator[None]:
    """Draw with this module's settings instead of the user's matplotlibrc."""
    with style.context(["default", STYLE]), warnings.catch_warnings():
        # Text stays text in the SVG, so the reader's fonts supply the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def canvas(width: int, height: int, margins: tuple[int, int, int, int]) -> tuple[Figure, Axes]:
    """An empty figure of `width` x `height` pixels, with axes inside the margins.

    The margins are left, right, top and bottom, in pixels.
    """
    left, right, top, bottom = margins
    figure = Figure(figsize=(width / 72, height / 72))
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box)


def finish(figure: Figure, name: str, part: str, alt: str) -> Drawing:
    """The figure as a `Drawing`.

    The same input gives the same bytes. Ids are unique across figures, and there are no inline styles.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        for sheet in element.findall(f"{{{SVG}}}style"):
            element.remove(sheet)
        _plain_attributes(element, name)
    for shape in root.iterfind(f".//{{{SVG}}}defs/{{{SVG}}}path"):
        # `use` gives it, too, and the dark rules of a page do not reach into what `use` repeats.
        shape.attrib.pop("stroke", None)
    _, _, width, height = root.attrib.pop("viewBox").split()
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": alt})
    root.attrib.update({"width": width, "height": height, "stroke-linejoin": "round"})
    return Drawing(name=name, part=part, alt=alt, svg=ElementTree.tostring(root, encoding="unicode"))


def _plain_attributes(element: ElementTree.Element, name: str) -> None:
    """Convert inline style to attributes, use the reader's fonts, and prefix ids.

    The prefix is the figure's name.
    """
    for key in ("d", "x", "y", "transform"):
        if key in element.attrib:  # a hundredth of a pixel is enough
            element.set(key, re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[key]).replace("\n", ""))
    for declaration in element.attrib.pop("style", "").split("; "):
        if declaration:
            key, value = declaration.split(": ", 1)
            element.set(key, value)
    if "font-family" in element.attrib:
        element.set("font-family", "system-ui, sans-serif")
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    if f"{{{XLINK}}}href" in element.attrib:
        element.set(f"{{{XLINK}}}href", f"#{name}-{element.attrib[f'{{{XLINK}}}href'][1:]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", re.sub(r"url\(#", f"url(#{name}-", element.attrib["clip-path"]))


def headed(figure: Figure, x: float, height: int, text: str) -> None:
    """Write a figure's title at its top, from the fraction `x` of its width.

    The figure is `height` pixels high.
    """
    figure.text(x, 1 - TITLE_FROM_TOP / height, text, weight="bold", va="center")


def file_name(name: str) -> str:
    """A metric's or reward's name as part of a file name."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name).strip("_")
