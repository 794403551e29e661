"""Comparisons of fitted models by their likelihoods."""

import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklmm._fitted import bootstrap
from sklmm._fitted.nulls import Null
from sklmm._fitted.tables import without_likelihood
from sklmm._tables import Table
from sklmm.result import Status
from sklmm.steps import Laplace

#: Largest chi2, absolute and relative to the deviance, of models that have converged to one
#: likelihood.
LEAST_CHI2 = 1e-3
LEAST_RELATIVE = 1e-9
#: Monte Carlo standard errors beyond which an estimate is not off.
MOST_ERRORS = 4.0
#: What fits that are compared have in common, and what to do otherwise.
DATA = {
    "y": "fit all to one response, of the same rows",
    "weights": "give all the same sample_weight",
    "offset": "give all the same offset",
}


def anova(
    *models,
    n_boot=None,
    X=None,
    y=None,
    sample_weight=None,
    n_jobs=None,
    random_state=None,
    verbose=0,
):
    """Likelihood-ratio tests of nested models, in the order of their numbers of parameters.

    Parameters
    ----------
    *models : fitted MixedEffectsRegressor or MixedEffectsClassifier
        At least two, of the same family or of nested ones: "poisson" is within
        "negative_binomial", "nbinom1" and "generalized_poisson", "truncated_poisson" within
        "truncated_negative_binomial", "binomial" within "beta_binomial", and a family that has
        zeros within itself with `zero_inflation`. They are fitted on the same rows, y, weights and
        offset; by ML, or by REML with the same fixed part.
    n_boot : int, optional
        Data sets that are drawn from the smaller model of each test, and that both models are
        fitted to: p is then the parametric bootstrap's. None takes p of `null`.
    X, y, sample_weight
        The rows of the fits, for `n_boot`; y None where a formula names it.
    n_jobs : int, optional
        Processes of joblib's, for `n_boot`.
    random_state : int, RandomState or None
        Of the draws, whose numbers do not depend on `n_jobs`.
    verbose : int, default=0
        Progress of the refits, as joblib's `Parallel` prints it.

    Returns
    -------
    DataFrame
        n_parameters, aic, bic, loglik, deviance, and against the model of the row before chi2, df,
        p and null; one row a model, indexed by its place among the arguments. `null` tells how
        chi2 is distributed where the smaller model is true: "chi2"; "mixture", of chi-squares;
        "unclear", where a parameter is at its bound and p is chi2's all the same, in general too
        large; or "bootstrap", where n_boot is the number of data sets that both could be fitted to.

    Raises
    ------
    ValueError
        For models whose likelihoods cannot be compared, that have none or priors, and why; also
        where a model of more parameters has a lower likelihood, so that the other is not within it;
        and with `n_boot` for rows that are not those of the fits, or that cannot be drawn.

    Notes
    -----
    chi2 is twice the difference of the log-likelihoods, and chi-square where the smaller model is
    true (Wilks 1938), but for a variance that is 0 under it, at its bound. Of a term with one
    coefficient more p is of half chi2_(df - 1) and half chi2_df (Self & Liang 1987, Stram & Lee
    1994), and so it is of a dispersion that is 0 in the smaller model, as in a Poisson or a
    binomial one, and of one probability of more zeros; of both at once it is "unclear". Of two
    coefficients more, with their correlation, and of several independent variances the weights are
    those of estimates that do not depend on each other. They are approximations, as is any mixture
    of few levels: the bootstrap has none. Its p is (1 + k) / (1 + n), with k of n data sets of a
    chi2 no less (Davison & Hinkley 1997, sec. 4.2).

    Where `loglik_error_` is not 0, chi2 has an error of twice the root of their squares' sum, and a
    warning tells of one that is not beyond it. Likelihoods of Monte Carlo fits are computed here,
    if they were not before.

    References
    ----------
    Self & Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood ratio
    tests under nonstandard conditions, JASA 82, 605-610.
    Stram & Lee (1994), Variance components testing in the longitudinal mixed effects model,
    Biometrics 50, 1171-1177.
    Wilks (1938), Ann. Math. Stat. 9, 60-62.
    Davison & Hinkley (1997), Bootstrap Methods and their Application, Cambridge.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor, anova
    >>> from sklmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> small = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
    >>> large = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml").fit(X, y)
    >>> table = anova(small, large)
    >>> table[["chi2", "df"]].iloc[1].round(2).tolist(), table["null"].iloc[1]
    ([42.14, 2.0], 'mixture')
    >>> anova(small, large, n_boot=19, X=X, y=y, random_state=0)["p"].tolist()
    [nan, 0.05]
    """
    if len(models) < 2:
        raise ValueError(f"models: anova compares at least two, not {len(models)}.")
    for model in models:
        check_is_fitted(model)
    _check_comparable(models)
    results = [model.result_ for model in models]
    table = Table(
        {
            "n_parameters": [r.n_parameters for r in results],
            "aic": [m.aic_ for m in models],
            "bic": [m.bic_ for m in models],
            "loglik": [m.loglik_ for m in models],
            "deviance": [-2 * m.loglik_ for m in models],
        },
        index=pd.RangeIndex(len(models), name="model"),
    ).sort_values("n_parameters", kind="stable")
    table["chi2"] = 2 * table["loglik"].diff()
    table["df"] = table["n_parameters"].diff()
    _check_nested(models, table)
    _warn_of_noise(models, table)
    ordered = [models[k] for k in table.index]
    tests = zip(pairwise(ordered), table["chi2"].iloc[1:], table["df"].iloc[1:], strict=True)
    tests = [(pair, max(chi2, 0.0), int(df)) for pair, chi2, df in tests]
    if n_boot is None:
        found = [_by_null(*test) for test in tests]
    else:
        rows, rng = (X, y, sample_weight), check_random_state(random_state)
        work = {"rng": rng, "n_jobs": n_jobs, "verbose": verbose}
        found = [_by_bootstrap(*test, n_boot, rows, work) for test in tests]
    p, null, n = zip((np.nan, "", 0), *found, strict=True)
    table["p"], table["null"] = p, null
    return table if n_boot is None else table.assign(n_boot=n)


def _by_null(pair, chi2, df):
    """(p, the null distribution's name, 0) of a test."""
    if df <= 0:
        return np.nan, "", 0
    null = Null.of(*(model._fitted for model in pair), df)
    return null.sf(chi2, LEAST_CHI2), null.name, 0


def _by_bootstrap(pair, chi2, df, n_boot, rows, work):
    """(p, "bootstrap", number of data sets that both were fitted to) of a test."""
    if df <= 0:
        return np.nan, "", 0
    if rows[0] is None:
        raise ValueError("n_boot needs the rows of the fits: anova(..., n_boot=999, X=X, y=y).")
    for model in pair:
        if model.result_.chains is not None:
            raise ValueError(
                f"n_boot={n_boot}: fits by e_step={model._fitted.e_step!r} have a Monte Carlo "
                "error that hides differences of their likelihoods: fit by 'laplace' or "
                "'quadrature'."
            )
    trained = [model._training(*rows) for model in pair]
    design, response = trained[0]
    bootstrap.check_draws(response, n_boot, "n_boot", 1)
    statistic = partial(_statistic, pair, trained)
    drawn = bootstrap.refitted(statistic, design, response, pair[0].result_, n_boot, **work)
    if not drawn:
        raise ValueError(
            f"n_boot={n_boot}: the models could not be fitted to data drawn from the smaller one, "
            f"of {pair[0].result_.n_parameters} parameters: use n_boot=None."
        )
    extreme = np.sum(np.array(drawn) >= chi2 - LEAST_CHI2)
    return (1 + extreme) / (1 + len(drawn)), "bootstrap", len(drawn)


def _statistic(pair, trained, y, seed):
    """chi2 of two models fitted to another y; less than 0 it is fitted again, without a start."""
    for warm in (True, False):
        small, large = (
            model._refitted(design, replace(response, y=y), seed, warm).loglik
            for model, (design, response) in zip(pair, trained, strict=True)
        )
        if large > small - LEAST_CHI2:
            break
    return 2 * (large - small)


def _check_comparable(models):
    results = [model.result_ for model in models]
    _check_families(models)
    _check_same([getattr(m._fitted.family, "link", "identity") for m in models], "links")
    _check_same([_weights_are(m._fitted.family) for m in models], "meanings of the weights")
    _check_same(
        [own for m in models if (own := _likelihood(m))], "likelihoods: fit all by the same e_step"
    )
    if any(r.log_prior is not None for r in results):
        raise ValueError(
            "models: likelihood-ratio tests are of likelihoods' maxima, and fits with priors "
            "(coef_prior, sd_prior) have other estimates: fit all without priors."
        )
    _check_same([r.n_obs for r in results], "numbers of observations: fit them on the same rows")
    for what, remedy in DATA.items():
        values = [m._fitted.fingerprint.data[what] for m in models]
        _check_same(values, f"{what}: {remedy}", shown=False)
    _check_same([r.reml for r in results], "methods: fit all by method='ml'")
    if results[0].reml:
        _check_same(
            [tuple(m.fixed_effects_.index) for m in models],
            "fixed parts, and REML's likelihoods are of different data then: fit them by "
            "method='ml'",
        )
    for k, result in enumerate(results):
        if result.status is Status.PERFECT:
            raise ValueError(
                f"models: model {k} is a perfect fit, whose likelihood has no bound: nothing that "
                "has more parameters can be better."
            )
    # Last: it may have to be computed.
    for k, model in enumerate(models):
        if np.isnan(model.loglik_):
            terms = ", ".join(map(repr, model.random_effects_)) or "none"
            raise ValueError(
                f"models: model {k} (random effects {terms}) has no log-likelihood: "
                f"{without_likelihood(model.result_)}."
            )


def _weights_are(family):
    """What weights mean; trials may be in another place."""
    return "trials" if "trials" in family.row_data else family.weights


def _likelihood(model):
    """What a model's likelihood is beside others; None where it is the same by any step."""
    spec, family = model._fitted.spec, model._fitted.family
    # Effects of a normal y's mean are normal, too; those of its variance are not.
    linear = len(spec.every_term) == len(spec.terms) and (family.closed_form or family.quadratic)
    if linear or not spec.every_term:
        return None
    # Quadrature's is what others estimate.
    laplace = model._fitted.approximation == Laplace.approximation
    return "Laplace's" if laplace else "the exact one"


def _check_nested(models, table):
    """ValueError where more parameters have less likelihood, beyond errors of those."""
    errors = np.array([_chi2_error(models[k]) for k in table.index])
    allowed = LEAST_CHI2 + LEAST_RELATIVE * table["deviance"].abs().to_numpy()
    allowed[1:] += errors[1:] + errors[:-1]
    lower = ((table["df"] > 0) & (table["chi2"] < -allowed)).to_numpy()
    if lower.any():
        at = int(np.argmax(lower))
        small, large = table.index[at - 1], table.index[at]
        raise ValueError(
            f"models: model {large} has more parameters than model {small} and a lower likelihood "
            f"(chi2 = {table['chi2'].iloc[at]:.4g}): model {small} is not nested in it, one of the "
            "fits has not converged, or their rows of X are in another order beside y."
        )


def _warn_of_noise(models, table):
    """UserWarning where chi2 is within twice its Monte Carlo error, of the likelihoods'."""
    errors = np.array([2 * models[k].loglik_error_ for k in table.index])
    noise = np.hypot(errors[1:], errors[:-1])
    chi2, df = (table[name].to_numpy()[1:] for name in ("chi2", "df"))
    for at in np.flatnonzero((df > 0) & (noise > LEAST_CHI2) & (np.abs(chi2) < 2 * noise)):
        small, large = table.index[at], table.index[at + 1]
        warnings.warn(
            f"models: chi2 = {chi2[at]:.2g} of models {small} and {large} is within the Monte "
            f"Carlo error of their likelihoods, {noise[at]:.2g}, and p tells no more than that it "
            "is small. Where Laplace's approximation is good enough, e_step='laplace' has no such "
            "error.",
            UserWarning,
            stacklevel=3,
        )


def _chi2_error(model):
    """What Monte Carlo errors of a model's likelihood and estimates make of chi2, at most."""
    std = np.sqrt(np.maximum(np.diag(model.result_.natural_cov), 0.0))
    known = std > 0
    shares = model.result_.mc_error[known] / std[known]
    return MOST_ERRORS * (2 * model.loglik_error_ + np.sum(shares**2))


def _check_families(models):
    """One family, or each within that of the next larger model."""
    ordered = sorted(models, key=lambda model: model.result_.n_parameters)
    if not all(_is_within(*pair) for pair in pairwise(ordered)):
        names = [model._fitted.family.name for model in models]
        _check_same(names, "families: likelihoods of different families are not nested")


def _is_within(small, large):
    """Whether one model's family is within the other's; of as many parameters either way."""
    one, other = small._fitted.family, large._fitted.family
    equal = small.result_.n_parameters == large.result_.n_parameters
    return one.name in other.nested or (equal and other.name in one.nested)


def _check_same(values, what, shown=True):
    other = next((k for k, value in enumerate(values) if value != values[0]), None)
    if other is not None:
        told = f"they have {', '.join(dict.fromkeys(map(str, values)))}"
        told = told if shown else f"model {other}'s is not model 0's"
        raise ValueError(f"models: they have different {what}; {told}.")
