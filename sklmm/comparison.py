"""Comparisons of fitted models by their likelihoods."""

import numpy as np
import pandas as pd
from scipy.stats import chi2
from sklearn.utils.validation import check_is_fitted


def anova(*models):
    """Likelihood-ratio tests of nested models, in the order of their numbers of parameters.

    Parameters
    ----------
    *models : fitted MixedEffectsRegressor or MixedEffectsClassifier
        At least two, of the same family and fitted on the same rows; by ML, or by REML with the
        same fixed part.

    Returns
    -------
    DataFrame
        n_parameters, aic, bic, loglik, deviance, and against the model of the row before chi2, df
        and p; one row a model, indexed by its place among the arguments.

    Raises
    ------
    ValueError
        For models whose likelihoods cannot be compared.

    Notes
    -----
    chi2 is twice the difference of the log-likelihoods (Wilks 1938). A variance that is 0 under the
    smaller model is at its bound, where p is too large, by up to a factor of 2 (Self & Liang 1987,
    JASA 82, 605-610). Where `loglik_error_` is not 0, chi2 has an error of twice the root of their
    squares' sum.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor, anova
    >>> from sklmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> small = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
    >>> large = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml").fit(X, y)
    >>> anova(small, large)[["chi2", "df"]].iloc[1].round(2).tolist()
    [42.14, 2.0]
    """
    if len(models) < 2:
        raise ValueError(f"models: anova compares at least two, not {len(models)}.")
    for model in models:
        check_is_fitted(model)
    _check_comparable(models)
    results = [model.result_ for model in models]
    table = pd.DataFrame(
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
    table["p"] = np.where(table["df"] > 0, chi2.sf(table["chi2"], table["df"]), np.nan)
    return table


def _check_comparable(models):
    results = [model.result_ for model in models]
    for k, result in enumerate(results):
        if result.loglik is None:
            raise ValueError(
                f"models: model {k} has no log-likelihood (see loglik_ for where there is none): "
                "fit all by e_step='laplace', or by 'exact' if they are Gaussian."
            )
    _check_same(
        [m._family.name for m in models],
        "families: likelihoods of different families are not nested",
    )
    _check_same([getattr(m._family, "link", None) for m in models], "links")
    _check_same([m._family.weights for m in models], "meanings of the weights")
    if models[0]._family.name != "gaussian":
        # A model without effects has one likelihood.
        _check_same(
            ["estimated" if r.loglik_error else "Laplace's" for r in results if r.effects],
            "likelihoods: fit all by the same e_step",
        )
    _check_same([r.n_obs for r in results], "numbers of observations: fit them on the same rows")
    _check_same([r.reml for r in results], "methods: fit all by method='ml'")
    if results[0].reml:
        _check_same(
            [tuple(m.fixed_effects_.index) for m in models],
            "fixed parts, and REML's likelihoods are of different data then: fit them by "
            "method='ml'",
        )


def _check_same(values, what):
    if any(value != values[0] for value in values):
        shown = ", ".join(dict.fromkeys(map(str, values)))
        raise ValueError(f"models: they have different {what}; they have {shown}.")
