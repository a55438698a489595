"""Exact attribution of a score to the ingredients of an arm: Shapley values and effects."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from math import factorial


def shapley(values: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Each ingredient's mean contribution over all orders in which the ingredients could have been added.

    With n ingredients N and the score v(S) of the arm that has exactly S,

        phi_i = sum over S within N without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S));

    the values sum to v(N) - v({}).

    Args:
        values: the score of every subset of the ingredients, the empty one included.

    Returns:
        The value of each ingredient, by name, sorted.

    Raises:
        ValueError: a subset is missing; it is named, and nothing is imputed.
    Source: Shapley (1953), A value for n-person games, Contributions to the Theory of Games II, equation 13.
    """
    ingredients = sorted(frozenset[str]().union(*values))
    missing = [subset for subset in subsets(ingredients) if subset not in values]
    if missing:
        named = ", ".join("{" + ", ".join(sorted(subset)) + "}" for subset in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"values has no score for {named}{more}; exact Shapley values of {len(ingredients)} ingredients need all "
            f"{2 ** len(ingredients)} subsets (design: factorial)"
        )
    weights = shapley_weights(ingredients)
    return {name: sum(weight * values[subset] for subset, weight in weights[name].items()) for name in ingredients}


def shapley_weights(ingredients: Iterable[str]) -> dict[str, dict[frozenset[str], float]]:
    """For each ingredient, the weight of each subset's score in its Shapley value.

    The value is a contrast of the arms' scores: `rlassay.stats.contrast` with these weights gives its interval. The
    weights of an ingredient sum to 0, those of the subsets that have it to 1.
    """
    names = sorted(set(ingredients))
    n = len(names)
    weights: dict[str, dict[frozenset[str], float]] = {}
    for name in names:
        own: dict[frozenset[str], float] = {}
        for subset in subsets(other for other in names if other != name):
            share = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n)
            own[subset | {name}], own[subset] = share, -share
        weights[name] = own
    return weights


def effect_weights(ingredients: Iterable[str], of: Iterable[str]) -> dict[frozenset[str], float]:
    """The weight of each subset's score in a main effect or an interaction.

    `of` has one ingredient for a main effect, several for an interaction. The main effect is the mean over the other
    ingredients' settings of the score with the ingredient minus that without it; an interaction of k ingredients is the
    mean difference of differences, without a factor 2^(1 - k). For `of` = T of n ingredients, S weighs `(-1)^|T - S| /
    2^(n - |T|)`.

    Raises:
        ValueError: `of` is empty or names an ingredient that is not among them.
    Source: Box, Hunter and Hunter (2005), Statistics for Experimenters, chapter 5, up to that factor.
    """
    names, chosen = set(ingredients), frozenset(of)
    if not chosen or not chosen <= names:
        raise ValueError(f"of is {sorted(chosen)}; expected some of the ingredients {sorted(names)}")
    size = 2 ** (len(names) - len(chosen))
    return {subset: (-1) ** len(chosen - subset) / size for subset in subsets(names)}


def subsets(names: Iterable[str]) -> Iterator[frozenset[str]]:
    """All subsets of some names, from none to all, in the order of names."""
    listed = list(names)
    for size in range(len(listed) + 1):
        yield from (frozenset(chosen) for chosen in combinations(listed, size))
