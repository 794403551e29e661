"""Simulation of crossed Gaussian data, from test size to 10^8 rows.

The model, for rows i, factors k and levels j:

    y_i = intercept + x_i' coef + sum_k b_k[g_k(i)] + e_i
    b_k[j] ~ N(0, sd_k^2),   e_i ~ N(0, sigma^2)

Which level a row gets is drawn from lognormal weights, w_j = exp(popularity * z_j), z_j ~ N(0, 1):
a solver of crossed designs has to cope with group sizes that differ by orders of magnitude.

The counts of the levels are drawn first (multinomial), then laid out and shuffled. That is the same
distribution as drawing row by row, faster, and gives every level its guaranteed row. Each column
has a random stream of its own, read in row order.
"""

from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

_CHUNK_ROWS = 2**18


def make_crossed(
    n_samples=100_000,
    n_levels=(2_000, 800),
    *,
    n_features=1,
    intercept=1.0,
    coef=0.5,
    sds=None,
    sigma=1.0,
    popularity=1.5,
    random_state=None,
):
    """Simulate a Gaussian response on crossed grouping factors, with heavy-tailed group sizes.

    Rows belong to one level of each factor, drawn independently between factors, as a rating
    belongs to a user and a film. Some levels are far more frequent than others: the shape is
    inspired by the MovieLens ratings of GroupLens [1]_ (MovieLens 32M has 32,000,204 ratings by
    200,948 users of 84,432 films); no data of theirs are used.

    Parameters
    ----------
    n_samples : int, default=100_000
        Rows. 10^8 rows of two factors and a feature take 1.6 GB, the size of the result.
    n_levels : int or sequence of int, default=(2_000, 800)
        Levels of each factor.
    n_features : int, default=1
        Fixed-effect columns, independent standard normal variables. May be 0.
    intercept : float, default=1.0
        Mean of the response where the features and the random effects are 0.
    coef : float or array-like of shape (n_features,), default=0.5
        Coefficients of the features; a number stands for all of them.
    sds : float or sequence of float, default=None
        Standard deviations of the random effects, one per factor or one for all, in units of y.
        ``None``: 1, 1/2, 1/3, ...
    sigma : float, default=1.0
        Standard deviation of the residuals, in units of y.
    popularity : float or sequence of float, default=1.5
        Standard deviation of the logarithm of the levels' weights, one per factor or one for all.
        0 makes all levels equally likely; at 1.5, the most frequent tenth of the levels gets about
        59% of the rows (in general the share Phi(popularity - 1.28)).
    random_state : int, RandomState instance or None, default=None
        An int reproduces the data exactly, on any machine with the same NumPy version.

    Returns
    -------
    X : DataFrame of shape (n_samples, n_factors + n_features)
        Columns ``g0``, ``g1``, ... (int32, levels 0 to n_levels - 1) and ``x0``, ``x1``, ...
        (float32). Every level occurs when ``n_samples`` is at least its factor's number of levels.
    y : ndarray of shape (n_samples,)
        The response, float32.
    truth : Bunch
        What made the data: ``intercept`` : float; ``coef`` : ndarray of shape (n_features,);
        ``sds`` : dict from factor to float; ``sigma`` : float; ``effects`` : dict from factor to
        ndarray of shape (n_levels,), the drawn b_k.

    Raises
    ------
    TypeError
        If a number of rows, levels or features is not an integer.
    ValueError
        If a number is out of its range, or a sequence has the wrong length.

    Notes
    -----
    The same ``random_state`` gives a factor the same levels whatever the number of features, and
    a feature the same values whatever the factors. Row order carries no information.

    References
    ----------
    .. [1] Harper, F. M. and Konstan, J. A. (2015). The MovieLens datasets: history and context.
       ACM Transactions on Interactive Intelligent Systems, 5(4), 19.

    Examples
    --------
    >>> from sklmm.datasets import make_crossed
    >>> X, y, truth = make_crossed(1_000, n_levels=(50, 20), sds=(0.8, 0.3), random_state=0)
    >>> X.columns.tolist(), X.shape, y.shape
    (['g0', 'g1', 'x0'], (1000, 3), (1000,))
    >>> X[["g0", "g1"]].nunique().tolist()
    [50, 20]
    >>> truth.sds
    {'g0': 0.8, 'g1': 0.3}
    """
    _check_int("n_samples", n_samples, minimum=1)
    _check_int("n_features", n_features, minimum=0)
    n_levels = [n_levels] if isinstance(n_levels, Real) else list(n_levels)
    for size in n_levels:
        _check_int("n_levels", size, minimum=1)
    if sds is None:
        sds = [1 / (k + 1) for k in range(len(n_levels))]
    sds = _per_item("sds", sds, len(n_levels), "factors", minimum=0.0)
    popularity = _per_item("popularity", popularity, len(n_levels), "factors", minimum=0.0)
    coef = _per_item("coef", coef, n_features, "features")
    (intercept,) = _per_item("intercept", intercept, 1, "intercept")
    (sigma,) = _per_item("sigma", sigma, 1, "residual SD", minimum=0.0)

    streams = _streams(random_state, len(n_levels), n_features)
    columns, effects = {}, {}
    for k, rng in enumerate(streams["factors"]):
        effects[f"g{k}"] = sds[k] * rng.standard_normal(n_levels[k])
        columns[f"g{k}"] = _draw_refs(rng, n_samples, n_levels[k], popularity[k])
    for k, rng in enumerate(streams["features"]):
        columns[f"x{k}"] = rng.standard_normal(n_samples, dtype=np.float32)

    y = np.empty(n_samples, dtype=np.float32)
    for start in range(0, n_samples, _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, n_samples))
        eta = np.full(rows.stop - start, intercept)
        for k, slope in enumerate(coef):
            eta += slope * columns[f"x{k}"][rows]
        for name, b in effects.items():
            eta += b[columns[name][rows]]
        y[rows] = eta + sigma * streams["noise"].standard_normal(len(eta))

    truth = Bunch(
        intercept=float(intercept),
        coef=coef,
        sds={name: float(sd) for name, sd in zip(effects, sds, strict=True)},
        sigma=float(sigma),
        effects=effects,
    )
    return pd.DataFrame(columns, copy=False), y, truth


def _streams(random_state, n_factors, n_features):
    """One generator per column; the i-th child of a seed does not depend on how many there are."""
    entropy = check_random_state(random_state).randint(2**31 - 1, size=4).tolist()
    factors, features, noise = np.random.SeedSequence(entropy).spawn(3)
    return {
        "factors": [np.random.default_rng(seed) for seed in factors.spawn(n_factors)],
        "features": [np.random.default_rng(seed) for seed in features.spawn(n_features)],
        "noise": np.random.default_rng(noise),
    }


def _draw_refs(rng, n_rows, n_levels, popularity):
    """Draw the level of every row, int32 [n_rows]; each level once at least where rows suffice."""
    log_weights = popularity * rng.standard_normal(n_levels)
    weights = np.exp(log_weights - log_weights.max())
    guaranteed = 1 if n_rows >= n_levels else 0
    counts = guaranteed + rng.multinomial(n_rows - guaranteed * n_levels, weights / weights.sum())
    refs = np.repeat(np.arange(n_levels, dtype=np.int32), counts)
    rng.shuffle(refs)
    return refs


def _check_int(name, value, minimum):
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer (or integers), got {value!r}.")
    if not minimum <= value < 2**31:
        raise ValueError(f"{name} must be at least {minimum} and below 2**31, got {value}.")


def _per_item(name, value, n_items, items, minimum=-np.inf):
    """Broadcast a number to float64 [n_items], or check a sequence that long."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(n_items, array)
    if array.shape != (n_items,):
        raise ValueError(
            f"{name} has shape {array.shape}, but there are {n_items} {items}: "
            "give one value for each, or one number for all."
        )
    if not np.all(np.isfinite(array) & (array >= minimum)):
        bound = "" if minimum == -np.inf else f" and at least {minimum:g}"
        raise ValueError(f"{name} must be finite{bound}, got {value!r}.")
    return array
