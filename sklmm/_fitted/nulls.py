r"""How a likelihood ratio is distributed where the smaller of two models is the true one.

Twice the log of the ratio is chi-square of as many degrees of freedom as the larger model has
parameters more (Wilks 1938), unless some of these are at a bound under the smaller one, as the
variance of a term is that it has not, 0. Then it is a mixture of chi-squares (Self & Liang 1987,
JASA 82, 605-610): the larger model's estimates fill a cone, and the mixture's weights are the
chances with which an estimate without bounds is projected onto its faces.

- One coefficient more a level, whose covariances with r others are free: half chi2_r and half
  chi2_(r + 1) (Stram & Lee 1994, Biometrics 50, 1171-1177).
- Two coefficients more, with a correlation: positive definite matrices are a circular cone, of the
  angle pi / 4 where the levels' designs are alike.
- Independent variances: each is at 0 with a chance of a half, and where their estimates do not
  depend on each other the weights are binomial.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from sklmm.covariances import Diagonal, Unstructured
from sklmm.covariances.pinned import Pinned
from sklmm.design.terms import INTERCEPT

#: Weights by dimension of the face for one variance at 0, and for the covariance matrix of two
#: coefficients: the intrinsic volumes of the half line, and of the circular cone of angle pi / 4.
HALF = (0.5, 0.5)
CONE = (0.5 - 0.125**0.5, 0.125**0.5, 0.125**0.5, 0.5 - 0.125**0.5)
#: By the number of coefficients that a level has more.
CONES = {0: (1.0,), 1: HALF, 2: CONE}


class Null(NamedTuple):
    """A mixture of chi-squares of df, df + 1, ... degrees of freedom, by their weights.

    `name` is "chi2" for one, "mixture", or "unclear" where the weights are not known, and chi2 of
    all degrees of freedom stands for them.
    """

    name: str
    df: int
    weights: tuple = (1.0,)

    @classmethod
    def of(cls, small, large, df):
        """That of two `FittedModel`s, of which the larger one has df more parameters."""
        cones = [*_family_cones(small, large), *_term_cones(small, large)]
        if any(cone is None for cone in cones):
            return cls("unclear", df)
        weights = np.ones(1)
        for cone in cones:
            weights = np.convolve(weights, cone)
        free = df - (len(weights) - 1)
        if free < 0:
            return cls("unclear", df)
        return cls("mixture" if len(weights) > 1 else "chi2", free, tuple(weights.tolist()))

    def sf(self, statistic, least=0.0):
        """The chance of a ratio that is no less than a statistic; one up to `least` is 0."""
        chances = [
            chi2.sf(statistic, df) if df else float(statistic <= least)
            for df in range(self.df, self.df + len(self.weights))
        ]
        return float(np.dot(self.weights, chances))


def _family_cones(small, large):
    """The cones of the parameters by which the larger model's family is more than the other's."""
    ends = large.family.nested[small.family.name]
    if len(ends) > 1:
        # More zeros and a dispersion tell of the same rows: their estimates depend on each other.
        return [None]
    return [_parameter_cone(large, name) for name in ends]


def _parameter_cone(model, name):
    """That of a parameter of the family at the end of its range."""
    if name in getattr(model.family, "names", ()):
        return None
    part = dict(model.spec.models).get("zero_inflation" if name == "zero" else "dispersion")
    # Columns say nothing there.
    return HALF if part is None or part.coef_names == (INTERCEPT,) else None


def _term_cones(small, large):
    """A cone for each covariance of the larger model; None for what is not known."""
    before, after = _components(small), _components(large)
    if any(key not in after for key in before):
        return [None]
    cones = [cone for key in after for cone in _cones(before.get(key, []), after[key])]
    return cones * large.n_means


def _components(model):
    """What varies independently of all else, by part and grouping factor: (names, covariance).

    Independent coefficients are one each.
    """
    out = {}
    for part, spec in (("", model.spec), *model.spec.models):
        for term in spec.terms:
            effect, own = term.effect, term.covariance
            key = part, frozenset(effect.columns), effect.weights, effect.relation
            names = [frozenset([name]) for name in term.cnames]
            apart = isinstance(own, Pinned) or (isinstance(own, Diagonal) and not own.homogeneous)
            if isinstance(own, Pinned):
                found = [(name, sd) for name, sd in zip(names, own.sds, strict=True)]
            elif apart or own.r == 1:
                found = [(name, Unstructured(1)) for name in names]
            else:
                found = [(frozenset(term.cnames), own)]
            out.setdefault(key, []).extend(found)
    return out


def _cones(before, after):
    """The cones of one factor's components; those of both models have none."""
    left, cones = [own for own in before if own not in after], []
    for names, covariance in (own for own in after if own not in before):
        within = [own for own in left if own[0] <= names]
        left = [own for own in left if own not in within]
        more = len(names) - sum(len(own) for own, _ in within)
        if isinstance(covariance, Unstructured):
            # Any covariance of the same coefficients is an inner point, or has free ones beside it.
            inner = more == 0 or all(isinstance(own, Unstructured | float) for _, own in within)
            cones.append(CONES.get(more) if inner else None)
        elif isinstance(covariance, Diagonal) and not within:
            cones.append(HALF)
        else:
            # Of a new term the correlations have no values where the SDs are 0.
            cones.append(CONES[0] if within and more == 0 and _is_inner(covariance) else None)
    return [*cones, None] if left else cones


def _is_inner(covariance):
    """Whether correlations of 0 are within a covariance's range."""
    if isinstance(covariance, float):
        return False
    pairs = zip(covariance.reported, covariance.bounds, strict=True)
    return all(lower < 0 for (i, j), (lower, _) in pairs if i != j)
