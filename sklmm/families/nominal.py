"""Ordered classes whose cutpoints depend on columns: partial proportional odds.

The cutpoints of a row are theta_c + shift_c, and shift_c is linear in the columns. In terms of
`sklmm.families.ordinal` the row has the predictor eta - shift_1 and the spacings

    s_k = spacing_k + shift_{k+1} - shift_k,

which must be positive: where they are not, as for rows far from those of a fit, the class between
has no probability (`widths`).

The columns are those of the table less their means (`design.submodels`), so that the spacing_k are
those of an average row, which are positive, and not those where a column is 0, which may be far
from all rows. What is reported are the cutpoints at 0 (`_fitted.tables.Labels.matrix`).
"""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from sklmm.families.density import Density
from sklmm.families.ordinal import Ordinal

#: Least spacing of a row: with fewer the probability of the class between is 0.
LEAST = 1e-12


def widths(xp, spacings, shifts):
    """A row's spacings of its own, at least `LEAST`."""
    pairs = zip(spacings, pairwise(shifts), strict=True)
    return [xp.maximum(spacing + (b - a), LEAST) for spacing, (a, b) in pairs]


@dataclass(frozen=True)
class Shifted:
    """Makes the densities of shifted cutpoints from those of a link, `base`."""

    base: type

    #: As the link's.
    convex_links = ()
    scattered = False
    second = True

    def __call__(self, xp, y, eta, parameters, link):
        """The density in some rows."""
        return ShiftedDensity(self.base, xp, y, eta, parameters, link)


class ShiftedDensity(Density):
    """`base` is the density of a link, whose spacings and predictor are each row's own."""

    def __init__(self, base, xp, y, eta, parameters, link):
        super().__init__(xp, y, eta, {}, link)
        self._spacings = {k: v for k, v in parameters.items() if k.startswith("spacing_")}
        self._shifts = [v for k, v in parameters.items() if k.startswith("shift_")]
        own = widths(xp, list(self._spacings.values()), self._shifts)
        self._widths = dict(zip(self._spacings, own, strict=True))
        self._own = base(xp, y, eta - self._shifts[0], self._widths, link)

    value = property(lambda d: d._own.value)
    score = property(lambda d: d._own.score)
    expected = property(lambda d: d._own.expected)
    observed = property(lambda d: d._own.observed)
    value_and_score = property(lambda d: d._own.value_and_score)
    quick_score = property(lambda d: d._own.quick_score)

    @cached_property
    def _pulls(self):
        """Derivatives of log f in each of a row's spacings."""
        found = self._own.slopes
        return [found[name] / width for name, width in self._widths.items()]

    @cached_property
    def _free(self):
        """1 for each of a row's spacings that moves with the parameters, and 0 for a least one."""
        return [self.xp.where(w > LEAST, 0 * w + 1, 0.0) for w in self._widths.values()]

    def _moves(self):
        """Of each parameter: its name, how the predictor moves with it, and each spacing."""
        free = self._free
        for k, (name, spacing) in enumerate(self._spacings.items()):
            yield name, 0.0, [spacing * own if j == k else 0.0 for j, own in enumerate(free)]
        for k in range(len(self._shifts)):
            signs = {k - 1: 1.0, k: -1.0}
            rises = [signs[j] * own if j in signs else 0.0 for j, own in enumerate(free)]
            yield f"shift_{k + 1}", -1.0 if k == 0 else 0.0, rises

    @property
    def slopes(self):
        out = {}
        for name, along, rises in self._moves():
            parts = [r * pull for r, pull in zip(rises, self._pulls, strict=True) if _counts(r)]
            out[name] = sum(parts, along * self.score if _counts(along) else 0.0)
        return out

    @property
    def second(self):
        in_eta, inner = self._own.second
        names, widths = list(self._widths), list(self._widths.values())
        # Less the second derivatives in a row's predictor and spacings themselves.
        cross = [in_eta[name] / width for name, width in self._widths.items()]
        both = {}
        for (a, b), part in inner.items():
            i, j = sorted((names.index(a), names.index(b)))
            more = self._pulls[i] * widths[i] if i == j else 0.0
            both[i, j] = (part + more) / (widths[i] * widths[j])
        observed, moves = self._own.observed, list(self._moves())
        out, pairs = {}, {}
        for at, (name, along, rises) in enumerate(moves):
            parts = [r * c for r, c in zip(rises, cross, strict=True) if _counts(r)]
            out[name] = sum(parts, along * observed)
            for other, turned, falls in moves[at:]:
                total = along * turned * observed
                for factor, own in ((turned, rises), (along, falls)):
                    if _counts(factor):
                        total = total + factor * sum(
                            r * c for r, c in zip(own, cross, strict=True) if _counts(r)
                        )
                for i, r in enumerate(rises):
                    for j, f in enumerate(falls):
                        if _counts(r) and _counts(f):
                            total = total + r * f * both[min(i, j), max(i, j)]
                pairs[name, other] = total
        for k, (name, spacing) in enumerate(self._spacings.items()):
            # A spacing is the exponential of what is estimated.
            pairs[name, name] = pairs[name, name] - spacing * self._free[k] * self._pulls[k]
        return out, pairs


def _counts(factor):
    return not isinstance(factor, float) or factor != 0.0


class PartialOrdinal(Ordinal):
    """`Ordinal` whose cutpoints are shifted by columns of their own.

    An estimator makes it of its `family` by its parameter `nominal`.
    """

    def parameters(self, n_classes=None):
        """The spacings, and shift_1 .. shift_{K-1}."""
        return super().parameters(n_classes) | dict.fromkeys(self.shifts(n_classes), "real")

    def shifts(self, n_classes):
        """Names of the shifts of the cutpoints."""
        return [f"shift_{k}" for k in range(1, n_classes)]

    @property
    def density(self):
        """By the link."""
        return Shifted(super().density)

    def cutpoints(self, params):
        """Those of each row, in their order: none lies below the one before it."""
        shifts = [v for name, v in params.items() if name.startswith("shift_")]
        own = widths(np, self._spacings(params), shifts)
        return list(accumulate(own, initial=shifts[0]))
