r"""The hypotheses of a formula's terms, as combinations L of the coefficients of its columns.

Type III asks, of a term with the factors F, for the part of the mean that varies with all of F and
not with fewer, where each level of every other factor has the same weight: rows

    L = (x)_{f in F} (levels after the first, less the first)  (x)_{f not in F} (mean over levels)

of the columns' codes. It does not depend on these codes, nor on how many rows a level has (Yates
1934, J. Am. Stat. Assoc. 29, 51-66). Functions of numeric columns are taken as they are: a term
beside its product with x is tested at x = 0. What no other term stands for is a term's own, as the
factor b of ``a + a:b``: where that is both the mean over a factor's levels and what varies with
them, L has a row for each level, as the columns have.

Type II asks whether a term says anything beside all terms but those that it is in, its relatives.
With the coefficients' covariance C it is L = (I, -C_TR C_RR^-1) of the term's and its relatives'
columns, which is uncorrelated with the relatives' own: Wald's statistic of both less that of the
relatives (Fox & Weisberg 2019, An R Companion to Applied Regression, sec. 5.3.4).
"""

import math
import re
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.linalg import null_space

#: Share of the largest singular value up to which one is rounding.
ROUNDING = 1e-8


class FormulaTerm(NamedTuple):
    """A term of a formula, whose columns are `scoped`, one part after another.

    A part is a scale and, of each factor, its expression, which of its codes it has, "full" or
    "reduced", or None of a numeric one, and its number of columns. The part's columns are all
    products of theirs, the first factor's running fastest.
    """

    name: str
    scoped: tuple

    @property
    def factors(self):
        """Expressions of the categorical factors."""
        return {expr for _, own in self.scoped for expr, kind, _ in own if kind is not None}

    @property
    def numbers(self):
        """Expressions of the numeric factors."""
        return {expr for _, own in self.scoped for expr, kind, _ in own if kind is None}

    @property
    def size(self):
        """Number of columns."""
        return sum(width(own) for _, own in self.scoped)


def width(own):
    """Number of columns of a part with these factors."""
    return math.prod(size for *_, size in own)


def learn_terms(spec):
    """(`FormulaTerm`s of formulaic's ModelSpec, as plain tuples, and the codes of its factors).

    Codes [n_levels, n_columns] are by expression and kind.
    """
    terms, codes = [], {}
    for term, scoped, names in spec.structure:
        parts = []
        for one in scoped:
            own = []
            for scoped_factor in one.factors:
                expr = scoped_factor.factor.expr
                kind, state = spec.encoder_state[expr]
                if kind.value != "categorical":
                    own.append((expr, None, _functions(expr, names)))
                    continue
                how = "reduced" if scoped_factor.reduced else "full"
                known = codes.setdefault(expr, {})
                if how not in known:
                    coding = state["contrasts"].get_coding_matrix(scoped_factor.reduced)
                    known[how] = np.asarray(coding, dtype=float)
                own.append((expr, how, known[how].shape[1]))
            parts.append((float(one.scale), tuple(own)))
        terms.append((str(term), tuple(parts)))
    return tuple(terms), codes


def _functions(expr, names):
    """Number of columns of a numeric factor, by the names of a term's columns."""
    own = re.compile(rf"(?:^|:)({re.escape(expr)}(?:\[[^\[\]]*\])?)(?=:|$)")
    return max(len({found for name in names for found in own.findall(name)}), 1)


def type_three(terms, codes):
    """(name, L [., n_columns]) of each term but the intercept, of type III."""
    taken, out = set(), {}
    # A component belongs to the least of the terms that have it.
    for term in sorted(terms, key=lambda term: len(term.factors)):
        factors, numbers = sorted(term.factors), frozenset(term.numbers)
        own = [some for some in _subsets(factors) if (numbers, some) not in taken]
        taken.update((numbers, some) for some in own)
        whole = {f for f in factors if all(some ^ {f} in own for some in own)}
        out[term.name] = np.concatenate(
            [_component(terms, codes, numbers, some, whole) for some in own if not some & whole]
        )
    return [(term.name, out[term.name]) for term in terms if term.factors or term.numbers]


def _subsets(items):
    return [frozenset(some) for n in range(len(items) + 1) for some in combinations(items, n)]


def _component(terms, codes, numbers, factors, whole):
    """L [., n_columns] of the part that varies with these factors, for functions of these numbers.

    Each function of the numbers, and each level of factors that are `whole`, has rows of its own.
    """
    axes, blocks = [*sorted(numbers), *sorted(factors | whole)], []
    for term in terms:
        for scale, own in term.scoped:
            exprs = {expr for expr, *_ in own}
            alike = {expr for expr, kind, _ in own if kind is None} == set(numbers)
            # What lacks a factor does not vary with it.
            if alike and exprs >= factors:
                blocks.append(_part(scale, own, axes, codes, whole))
            else:
                blocks.append(np.zeros((0, width(own))))
    n_rows = max(map(len, blocks))
    return np.column_stack([b if len(b) else np.zeros((n_rows, b.shape[1])) for b in blocks])


def _part(scale, own, axes, codes, whole):
    """L of the columns of a part of a term; its rows are the products along `axes`."""
    along = {}
    for expr, kind, size in own:
        along[expr] = np.eye(size) if kind is None else codes[expr][kind]
        if kind is not None and expr not in axes:
            along[expr] = along[expr].mean(axis=0, keepdims=True)
        elif kind is not None and expr not in whole:
            along[expr] = along[expr][1:] - along[expr][0]
    for expr in whole - along.keys():
        along[expr] = np.ones((len(next(iter(codes[expr].values()))), 1))
    # The first factor runs fastest.
    exprs, along = [*along][::-1], [*along.values()][::-1]
    L = reduce(np.kron, along, np.full((1, 1), scale))
    order = [*map(exprs.index, axes), *(i for i, expr in enumerate(exprs) if expr not in axes)]
    sizes = [len(code) for code in along]
    return L.reshape(*sizes, -1).transpose(*order, len(sizes)).reshape(L.shape)


def type_two(terms, covariance, directions, d=1):
    """(name, L [., d n_columns]) of each term but the intercept, of type II.

    Of `d` predictors with the same columns each, the covariance of all of their coefficients, which
    is nan where a column was left out, and directions [d n_columns, k] along which they may move
    without a change of the mean.
    """
    ends = np.cumsum([0, *(term.size for term in terms)])
    kept = ~np.isnan(np.diag(covariance))

    def places(some):
        """Of the columns of some terms."""
        columns = [np.arange(*ends[i : i + 2]) + c * ends[-1] for c in range(d) for i in some]
        return np.concatenate([np.zeros(0, int), *columns])

    out, variables = [], [term.factors | term.numbers for term in terms]
    for i, (term, own) in enumerate(zip(terms, variables, strict=True)):
        if not own:
            continue
        relatives = places([j for j, other in enumerate(variables) if j != i and own <= other])
        # What columns beside the relatives say, too, is not the term's.
        beside, mine = directions @ _null(directions[relatives]), places([i])
        own = _null(beside[mine].T).T[:, kept[mine]]
        mine, relatives = mine[kept[mine]], relatives[kept[relatives]]
        L = np.zeros((len(own), len(covariance)))
        L[:, mine] = own
        if len(relatives):
            C = covariance[np.ix_(relatives, relatives)]
            L[:, relatives] = -own @ np.linalg.solve(C, covariance[np.ix_(relatives, mine)]).T
        out.append((term.name, L))
    return out


def _null(square):
    """Combinations [k, .] of the columns of [n, k] that are 0; each row in units of its own."""
    size = np.abs(square).max(axis=1, initial=0.0)
    square = square[size > 0] / size[size > 0, None]
    return null_space(square, ROUNDING) if len(square) else np.eye(square.shape[1])
