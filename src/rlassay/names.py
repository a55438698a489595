"""Sentences about an unknown name: the name, the known ones, and the nearest of them."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, got: object, known: Iterable[str]) -> str:
    """`credit: got 'uniforn', expected one of uniform, entropy_filter; did you mean 'uniform'?`"""
    known = list(known)
    return f"{what}: got {got!r}, expected {one_of(known)}{nearest(str(got), known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the known name closest to `name`, or the first that contains it; empty if none is."""
    known = list(known)
    close = get_close_matches(name, known, n=1) or [other for other in known if len(name) > 2 and name in other]
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(known: Iterable[str]) -> str:
    """`one of a, b, c`; the name alone when there is only one."""
    known = list(known)
    return known[0] if len(known) == 1 else "one of " + ", ".join(known)
