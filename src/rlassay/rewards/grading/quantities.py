"""Parse plain numbers and quantities with units.

Examples are `1,234.5`, `2 1/2`, `$5`, `7 元` and `2 hours 30 minutes`.
"""

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

# Numbers
DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,12}|\d{1,3}(?: \d{3}){1,12}|\d{1,60})"
_NUM = rf"[-+]?\s?(?:{DIGITS}(?:\.\d{{0,60}})?|\.\d{{1,60}})(?![\d.]*\d)"
_FRAC = r"\\frac\s?(?:\{\s?(-?\d{1,40})\s?\}\s?\{\s?(-?\d{1,40})\s?\}|(\d)\s?(\d))"
_RATIONAL = re.compile(
    r"(?P<sign>[-+]?)\s?(?:(?P<whole>\d{1,40})(?:\s(?=\d)|\s?(?:and\s)?(?=\\frac)))?"
    rf"(?:{_FRAC}|(?P<over>\d{{1,40}})\s?/\s?(?P<under>\d{{1,40}}))"
)
_PLAIN = re.compile(_NUM, re.ASCII)
COMMON = re.compile(r"-?(?:\d{1,40}|\d{1,3}(?:,\d{3}){1,9})", re.ASCII)
_SCIENTIFIC = re.compile(
    rf"({_NUM})\s?(?:[eE]([-+]?\d{{1,3}})|(?:\\times|\\cdot|\*)\s?10\s?\^\s?(?:\{{(-?\d{{1,3}})\}}|(-?\d{{1,3}})))"
)
_ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "百": 2, "千": 3, "万": 4, "亿": 8}
_NUMBER_HEAD = re.compile(
    rf"-?\s?(?:(?:\d{{1,40}}(?:\s(?=\d)|\s?(?:and\s)?(?=\\frac)))?(?:{_FRAC}|\d{{1,40}}\s?/\s?\d{{1,40}})|{_NUM})"
    rf"(?:\s?(?:{'|'.join(_ZEROS)}))?"
)
_SCALED = re.compile(rf"({_NUM})\s?({'|'.join(_ZEROS)})")

# Units: dimension and size in it
SIZES: dict[str, dict[str, str]] = {
    "length": {
        "mm millimeter millimetre 毫米": "1/1000",
        "cm centimeter centimetre 厘米": "1/100",
        "dm 分米": "1/10",
        "m meter metre 米": "1",
        "km kilometer kilometre 千米 公里": "1000",
    },
    "imperial length": {"in inch inche inches": "1", "ft foot feet": "12", "yd yard": "36", "mi mile": "63360"},
    "time": {
        "ms millisecond 毫秒": "1/1000",
        "s sec second 秒": "1",
        "min minute 分钟": "60",
        "h hr hour 小时": "3600",
        "d day 天": "86400",
        "week wk 周": "604800",
    },
    "calendar": {"month 月 个月": "1", "year yr 年": "12"},
    "mass": {
        "mg milligram 毫克": "1/1000",
        "g gram 克": "1",
        "kg kilogram 千克 公斤": "1000",
        "ton tonne 吨": "1000000",
    },
    "weight": {"oz ounce 盎司": "1", "lb pound 磅": "16"},
    "volume": {"ml milliliter millilitre 毫升": "1", "l liter litre 升": "1000"},
    "dollars": {"$ dollar usd us$ 美元": "1", "cent ¢ 美分": "1/100"},
    "yuan": {"¥ yuan rmb cny 元 块 块钱 人民币": "1", "角": "1/10", "分": "1/100"},
    "euros": {"€ euro eur 欧元": "1"},
    "sterling": {"£ gbp 英镑": "1"},
    "rupees": {"₹ rupee inr rs 卢比": "1"},
    "yen": {"jpy yen 日元 円": "1"},
    "won": {"₩ won krw 韩元": "1"},
    "percent": {"% percent pct 百分点": "1"},
    "degrees": {"° degree deg 度": "1"},
    "celsius": {"°c 摄氏度": "1"},
    "fahrenheit": {"°f 华氏度": "1"},
}
_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, sizes in SIZES.items()
    for names, size in sizes.items()
    for name in names.split()
}
_RATIOS = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h"}
CURRENCY_SIGNS = "$€£¥₹₩"
_SUM = "sum of "  # before the dimension of several quantities, which a number without a unit never equals
_NO_UNITS = frozenset(
    """
    and or to plus minus times over squared cubed factorial mod choose if is are not as of in by than sqrt sin cos tan
    log ln exp pi infty theta alpha beta e i x y z n k more less least most either both neither but where for
    """.split()  # noqa: SIM905
)
_WORD_UNIT = re.compile(
    r"(?:square |sq\.? ?|cubic )?[A-Za-z°%¢$]{1,20}(?:\s?(?:/|per )\s?[A-Za-z]{1,20})?(?:\s?\^\s?\{?[23]\}?)?"
    r"(?: (?!and\b|or\b|to\b|per\b)[a-z]{3,20}){0,2}|[\u3400-\u9fff]{1,5}"
)


class Quantity(NamedTuple):
    """A number with its unit."""

    number: Fraction
    """The number as stated, in its unit; the total for several quantities."""
    dimension: str | None = None
    """Physical dimension of the unit; None without a unit, and the unit itself if the table does not have it."""
    size: Fraction = Fraction(1)
    """Size of the unit, in the base unit of its dimension."""


def rational(text: str) -> Fraction | None:
    """The value of a plain number, fraction, mixed number or power of ten; None for any other text."""
    if _PLAIN.fullmatch(text):
        return Fraction(re.sub(r"[, +]", "", text).rstrip(".") or "0")
    if match := _RATIONAL.fullmatch(text):
        over, under = match["over"] or match[3] or match[5], match["under"] or match[4] or match[6]
        return (
            None
            if int(under) == 0
            else _mixed(match["sign"], int(match["whole"] or 0), Fraction(int(over), int(under)))
        )
    match = _SCIENTIFIC.fullmatch(text) or _SCALED.fullmatch(text)
    mantissa = rational(match[1].strip()) if match else None
    if match is None or mantissa is None:
        return None
    zeros = _ZEROS[match[2]] if match.re is _SCALED else int(match[2] or match[3] or match[4])
    return mantissa * Fraction(10) ** zeros


def _mixed(sign: str, whole: int, part: Fraction) -> Fraction:
    return -(whole + part) if sign == "-" else whole + part


def close(one: Fraction, other: Fraction) -> bool:
    """Whether two numbers are equal, or within a millionth if one is not whole.

    The millionth is absolute, or of the larger number where both are below 1.
    """
    if one == other or (one.denominator == 1 and other.denominator == 1):
        return one == other
    return abs(one - other) <= Fraction(1, 10**6) * min(Fraction(1), max(abs(one), abs(other)))


def quantity(text: str) -> Quantity | None:
    """Number, dimension and size of the unit of a text such as `5 cm`.

    Others are `$5` and `2 hours 30 minutes`. Without a unit the dimension is None and the size 1.
    """
    pairs: list[Quantity] = []
    rest = text
    while rest:
        pair, rest = first_quantity(rest)
        if pair is None or len(pairs) > 3:
            return None
        pairs.append(pair)
        rest = re.sub(r"^(?:,?\s?and\s|,\s?|\s)", "", rest)
    if len(pairs) == 1:
        return pairs[0]
    dimensions = {pair[1] for pair in pairs}
    falling = all(one[2] > other[2] for one, other in pairwise(pairs))
    if len(dimensions) != 1 or None in dimensions or not falling:
        return None
    total = sum((number * size for number, _, size in pairs), Fraction(0))
    return Quantity(total, f"{_SUM}{pairs[0].dimension}")


def first_quantity(text: str) -> tuple[Quantity | None, str]:
    sign = re.match(rf"(-?)\s?([{CURRENCY_SIGNS}])\s?(-?)", text)
    body = text[sign.end() :] if sign else text
    head = _NUMBER_HEAD.match(body)
    number = rational(head[0].strip()) if head else None
    if head is None or number is None:
        return None, text
    if sign:
        number = -number if sign[1] or sign[3] else number
        rest = body[head.end() :]
        named = re.match(r"\s?(?:dollars?|USD|US|euros?|yuan|RMB|pounds?)\b", rest)
        return Quantity(number, *_UNITS[sign[2]]), rest[named.end() :] if named else rest
    rest = body[head.end() :]
    unit = _WORD_UNIT.match(rest.lstrip())
    if not rest or (rest[0] in ",; " and rest[1:2].isdigit()):
        return Quantity(number), rest
    found = None if unit is None or rest[0] in ",;" else _unit(unit[0], spaced=rest[0] == " ")
    if unit is None or found is None:
        return None, text
    return Quantity(number, *found), rest.lstrip()[unit.end() :]


def _unit(text: str, *, spaced: bool) -> tuple[str, Fraction] | None:
    """Dimension and size of a unit, known or not; None for text that is no unit, such as a variable."""
    power = re.search(r"\s?\^\s?\{?([23])\}?$|^(square |sq\.? ?|平方)|^(cubic |立方)", text)
    exponent = 1 if power is None else int(power[1] or (2 if power[2] else 3))
    base = text if power is None else text.replace(power[0], "").strip()
    base = re.sub(r"\s?(?:/|\bper\b)\s?", "/", base)
    base = _RATIOS.get(base.lower(), base)
    known = (
        _UNITS.get(base)
        or _UNITS.get(base.lower())
        or (_UNITS.get(base.lower().removesuffix("s")) if len(base) > 2 else None)
    )
    if known is None and "/" in base:
        ratio = [_unit(part, spaced=True) for part in base.split("/", 1)]
        if ratio[0] and ratio[1]:
            return f"{ratio[0][0]}/{ratio[1][0]}", ratio[0][1] / ratio[1][1]
    if known and (spaced or len(base) > 1 or not base.isascii() or base in "%°$"):
        return (f"{known[0]}^{exponent}" if exponent > 1 else known[0]), known[1] ** exponent
    words = base.lower().replace("/", " ").split()
    if not words or known or any(word in _NO_UNITS for word in words) or (base.isascii() and len(words[0]) < 3):
        return None
    if base.isascii() and not any(vowel in words[0] for vowel in "aeiouy"):
        return None
    name = "/".join(word.removesuffix("s") for word in words) if "/" in base else words[-1].removesuffix("s")
    return ("" if name == "unit" else f"{name}^{exponent}" if exponent > 1 else name), Fraction(1)


def same_quantity(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities are equal; a missing unit fits any, and `50%` is 50 or 0.5."""
    one, other = gold.dimension, answer.dimension
    if one == other == "percent":
        return close(gold.number, answer.number)
    if {one, other} in ({"percent", None}, {"percent", ""}):
        share, number = (gold, answer) if one == "percent" else (answer, gold)
        return close(share.number, number.number) or close(share.number / 100, number.number)
    if not one or not other:
        return close(gold.number, answer.number) and not (one or other or "").startswith(_SUM)
    same_dimension = one.removeprefix(_SUM) == other.removeprefix(_SUM)
    return same_dimension and close(gold.number * gold.size, answer.number * answer.size)
