"""Confidence intervals that need the rows of the fit: profile likelihood and parametric bootstrap.

The bootstrap draws new effects and responses from the fitted model and fits it to each of them
(Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1), sec. 5.1); its intervals are normal
ones with the bias taken out (Davison & Hinkley 1997, Bootstrap Methods, eq. 5.5).
"""

from dataclasses import replace
from numbers import Integral

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import norm

from sklmm._fitted.draws import response_draws
from sklmm._fitted.latent import linear_predictor
from sklmm.families.parts import parameters_by_row
from sklmm.result import covariance_root


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


def check_draws(response, n_resamples):
    """Raise ValueError for rows that the bootstrap cannot draw, and for too few resamples."""
    counted = response.family.weights == "repeats"
    if counted and not (response.weights == 1).all():
        raise ValueError(
            "sample_weight: the bootstrap draws each row once, and these weights are "
            "repetitions: repeat the rows."
        )
    if response.family.open_ended:
        raise ValueError(
            "method='bootstrap' draws y, and what bounds it would then have is not known: use "
            "'profile' or 'wald'."
        )
    if n_resamples < 2:
        raise ValueError(f"n_resamples={n_resamples!r} must be at least 2.")
    if response.family.weights == "trials" and (response.weights % 1 != 0).any():
        raise ValueError(
            "sample_weight: the bootstrap draws successes of whole numbers of trials, and "
            "these weights are not whole."
        )


def bootstrap_estimates(refit, design, response, result, n_resamples, n_jobs, rng):
    """Estimates from data drawn from the model, [n_resamples, n_parameters].

    `refit` makes them of a Response; what it cannot fit is left out.
    """
    seeds = rng.randint(2**31 - 1, size=n_resamples)
    found = Parallel(n_jobs=n_jobs)(
        delayed(_resample)(refit, design, response, result, seed) for seed in seeds
    )
    found = [values for values in found if values is not None]
    if len(found) < 2:
        raise ValueError(
            f"n_resamples={n_resamples}: the model could not be fitted to data drawn from itself: "
            "use method='wald'."
        )
    return np.array(found)


def _resample(refit, design, response, result, seed):
    y = simulate(design, response, result, np.random.default_rng(seed))
    try:
        return refit(design, replace(response, y=y), seed)
    except ValueError:
        # Data that the model cannot be fitted to: counts that are all 0, say.
        return None


def bootstrap_intervals(estimates, estimate, level, bounds):
    """(lower, upper) [2, n_parameters] from resamples, cut at `bounds`.

    `estimates` are [n_resamples, n_parameters]. The interval is estimate - bias +- quantile * SD:
    percentiles of as few resamples are noisy, and do not correct for the bias of SDs.
    """
    bias = estimates.mean(axis=0) - estimate
    half = norm.ppf(0.5 + level / 2) * estimates.std(axis=0, ddof=1)
    lower, upper = estimate - bias - half, estimate - bias + half
    return np.stack([np.maximum(lower, bounds[0]), np.minimum(upper, bounds[1])])


def simulate(design, response, result, rng):
    """y [n_rows] from the fitted model, the effects drawn anew."""
    d, effects = response.n_predictors, []
    blocks = {k: b for own in design.predictors(d) for _, k, b in own.blocks}
    for k, (old, cov) in enumerate(zip(result.effects, result.covariances, strict=True)):
        noise, relation = rng.standard_normal(old.shape), blocks[k].relation
        noise = noise if relation is None else relation.back(noise)
        effects.append(noise @ covariance_root(cov).T)
    eta = linear_predictor(design, replace(result, effects=tuple(effects)), d=d)
    if not response.models:
        return response_draws(response, eta, result.family, rng)
    params = parameters_by_row(response.models, result.family, design.models)
    return response_draws(response, eta[..., None], params, rng)[:, 0]
