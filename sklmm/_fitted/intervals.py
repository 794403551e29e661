"""Confidence intervals that need the rows of the fit: profile likelihood and parametric bootstrap.

Of the bootstrap's refits they are normal ones with the bias taken out (Davison & Hinkley 1997,
Bootstrap Methods, eq. 5.5), percentiles, or percentiles corrected for bias and acceleration.
"""

from numbers import Integral

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

#: Difference of two estimates that is none, in SDs of the resamples.
SAME = 1e-6


def chosen(names, parm):
    """Places in `names` of the parameters that `parm` names or numbers, all places for None."""
    names = list(names)
    if parm is None:
        return list(range(len(names)))
    places = []
    for one in [parm] if isinstance(parm, str | Integral) else parm:
        if isinstance(one, str) and one in names:
            places.append(names.index(one))
        elif isinstance(one, Integral) and -len(names) <= one < len(names):
            places.append(int(one) % len(names))
        else:
            raise ValueError(
                f"parm: {one!r} is no parameter of this model, which has "
                f"{', '.join(map(repr, names))}: use these names, or their places from 0 on."
            )
    return places


def profile_intervals(profile, places, level, n_jobs):
    """(lower, upper) [2, n] of the parameters at `places`."""
    quantile = norm.ppf(0.5 + level / 2)
    found = Parallel(n_jobs=n_jobs)(delayed(profile.interval)(i, quantile) for i in places)
    return np.reshape(found, (-1, 2)).T


def bootstrap_intervals(estimates, estimate, level, bounds, kind="normal", left_out=None):
    """(lower, upper) [2, n_parameters] from resamples, within `bounds`.

    `estimates` are [n_resamples, n_parameters]. "normal" is estimate - bias +- quantile * SD,
    "percentile" quantiles of the resamples, and "bca" the same at levels that correct for bias and
    skewness, the latter by the estimates `left_out` [n_units, n_parameters] of a jackknife.
    """
    if kind == "normal":
        bias = estimates.mean(axis=0) - estimate
        half = norm.ppf(0.5 + level / 2) * estimates.std(axis=0, ddof=1)
        lower, upper = estimate - bias - half, estimate - bias + half
        return np.stack([np.maximum(lower, bounds[0]), np.minimum(upper, bounds[1])])
    tails = np.repeat([[0.5 - level / 2], [0.5 + level / 2]], len(estimate), axis=1)
    if kind == "bca":
        tails = corrected(tails, estimates, estimate, left_out)
    columns = zip(estimates.T, tails.T, strict=True)
    return np.transpose([_quantiles(column, own) for column, own in columns])


def corrected(tails, estimates, estimate, left_out):
    """The levels [2, m] of the resamples' quantiles that BCa has in the place of `tails` [2, m].

    Efron (1987), JASA 82, 171-185, eq. 2.3. Resamples that equal the estimate count as half below:
    of a variance of 0 there are many.
    """
    close = np.abs(estimates - estimate) <= SAME * estimates.std(axis=0)
    below = np.mean(np.where(close, 0.5, estimates < estimate), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = left_out.mean(axis=0) - left_out
        skewness = np.sum(away**3, axis=0) / (6 * np.sum(away**2, axis=0) ** 1.5)
        bias, skewness = norm.ppf(below), np.nan_to_num(skewness)
        moved = bias + norm.ppf(tails)
        return norm.cdf(bias + moved / (1 - skewness * moved))


def _quantiles(values, tails):
    """Quantiles of resamples at two levels; nan where the estimate is beyond all of them."""
    return np.quantile(values, tails) if np.isfinite(tails).all() else np.full(2, np.nan)
