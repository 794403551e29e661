"""`MixedEffectsRegressor`: the public estimator for numeric responses."""

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_y, check_array

from sklmm._estimators.base import BaseMixedEffects
from sklmm._estimators.batches import Batches
from sklmm._estimators.input import as_ordered
from sklmm._estimators.new_rows import nan_where_missing, score_where_known
from sklmm._estimators.predictive import Predictive
from sklmm._fitted import latent, prediction
from sklmm.design.columns import check_magnitude
from sklmm.families import resolve_family
from sklmm.families.components import component_of
from sklmm.families.messages import listed


class MixedEffectsRegressor(RegressorMixin, Predictive, Batches, BaseMixedEffects):
    r"""Mixed-effects regression with crossed or nested random effects, for any response family.

    .. math::
        \eta_i = x_i^T \beta + \alpha + \sum_k z_{ik}^T b_k[j_k(i)], \quad
        b_k[j] \sim N(0, \Sigma_k), \quad y_i \sim \mathrm{Family}(\eta_i, \phi)

    Gaussian models are fitted exactly or by conjugate gradients, the others by Monte Carlo EM, at
    the true maximum likelihood.

    Parameters
    ----------
    random_effects : list of str, int or RandomEffect, optional
        One term each: a column name or position (random intercept), an lme4 term string such as
        ``"(1 + days | subject)"``, or a `RandomEffect`. None fits the fixed part alone.
    fixed_effects : list of str or int, or str, optional
        Columns of the fixed part; None takes every column that is not a grouping column or the
        offset. Slope columns stay fixed effects too, as in lme4. A string is a formula in
        formulaic's grammar, ``"~ x * C(z) + bs(age, df=4)"``; see `from_formula` too.
        A column that depends linearly on those before it is left out, with a warning: coefficient
        0, no standard error. With no more rows than columns all stay, and the solution is that of
        minimum norm.
    fit_intercept : bool, default=True
    family : str, Family or callable, default="gaussian"
        "gaussian" (of two columns y, lower and upper bounds, a tobit model), "student_t"; of
        positive numbers "gamma", "lognormal", "inverse_gaussian", "tweedie"; of shares "beta",
        "ordered_beta"; of counts "poisson", "negative_binomial", "nbinom1", "generalized_poisson",
        and without zeros "truncated_poisson" and "truncated_negative_binomial"; "bernoulli",
        "binomial" and "beta_binomial" (proportions with the trials as `sample_weight`, or two
        columns of counts) or "ordinal"; an instance sets the link or pins a parameter,
        ``Gaussian(sigma=1.0)``; a function from eta to a TFP distribution is a family too, see
        `CustomFamily` for parameters.
    method : {"auto", "reml", "ml"}, default="auto"
        Restricted or full maximum likelihood; "auto" is REML for "gaussian" and "lognormal", but ML
        for bounds, hurdles, random effects in a part of the model, and all others. REML of other
        families integrates the coefficients out with a flat prior.
    e_step : {"auto", "exact", "cg", "laplace", "quadrature", "hmc", "nuts"} or EStep
        Default "auto".
        "exact" and "cg" are for "gaussian" and "lognormal": "auto" takes "exact" for up to 2,000
        random effects beside the largest term's (fewer if that one is huge), and "cg" beyond. For
        other families fitted by ML "auto" takes "quadrature" for one grouping factor with up to two
        effects a level, or nested factors, and few enough rows (see `Quadrature`); else it takes
        `HMC`.
    m_step : {"auto", "adam"} or Adam, default="auto"
        "auto" is damped Newton steps, after EM steps while the maximum is far.
    max_iter : int, default=200
        EM iterations.
    tol : float or "auto", default="auto"
        The fit stops when the last step, and for HMC the Monte Carlo error, are below `tol`
        standard errors of every parameter; quadrature also after a longer step that is expected to
        end within `tol` / 30 of them from the maximum, but not before an SD near 0 is at rest.
        "auto" is 0.001 for exact, cg, laplace and quadrature, 0.03 for hmc and nuts.
    handle_unknown : {"population", "typical", "error"}, default="population"
        At predict, the mean of an unseen or missing level: "population" averages it over the
        distribution of the levels' effects; "typical" is that at effect 0, as lme4's, which for
        other links than the identity is another number; or it is an error. `return_std` and
        `sample_y` are of a new observation, and the same by both.
    warm_start : bool, default=False
        Start from the previous fit's estimate.
    random_state : int, RandomState or None, default=None
        Seeds the probes of cg, the chains of HMC and posterior draws.
    verbose : int, default=0
        Print progress lines; higher prints more of them.
    device : str, optional
        TensorFlow device such as "CPU:0" or "GPU:0", for "hmc", "nuts" and custom families; NumPy's
        steps run on the processor, and "CPU:0" imports no TensorFlow for them.
    offset : str or int, optional
        Column that is added to the linear predictor, with coefficient 1: the log of the exposure
        of a count.
    dof : {"satterthwaite", "kenward-roger"} or None, default=None
        Degrees of freedom of t and F tests of the coefficients, in the place of normal ones, of
        Gaussian models by "exact" and "cg": Satterthwaite's, as lmerTest's, or Kenward and Roger's
        with their adjusted standard errors, as pbkrtest's. The latter are for REML by "exact" with
        covariances "us" and "diag"; they are to be preferred where groups are few, and where a
        variance is 0.
    missing : {"error", "drop"}, default="error"
        Whether rows that miss y, or a value of a column that the model reads, are an error or left
        out of the fit; `summary` counts them. With "drop", rows that miss a value of a fixed,
        slope or offset column are predicted as nan, and left out of `score`, and so are those with
        a label of a membership without its weight; a missing group is the population, as ever.
    zero_inflation : str or list, optional
        Columns of the probability of a zero, on the logit scale, beside those of the family's: a
        formula without a response, ``"~ z + (1 | g)"``, or a list of columns and terms; ``"~ 1"``
        is a constant. Of counts a row is 0 with that probability, and else the family's; of
        families without zeros (truncated counts, "gamma", "lognormal", "inverse_gaussian", "beta")
        it is a hurdle: that is the probability of 0. Predictions count the zeros in.
    dispersion : str or list, optional
        Columns of the family's own parameter on the log scale, likewise: the residual SD of
        "gaussian", the dispersion of "negative_binomial" (the inverse of glmmTMB's size), the shape
        of "gamma", the precision of "beta". An offset, ``"~ 1 + offset(log_sd)"``, is a known part.
    nominal : str or list, optional
        Columns that shift each cutpoint of "ordinal" by itself (partial proportional odds); of
        ``fixed_effects=None`` they are left out.
    coef_prior : float or dict, optional
        Normal priors of mean 0: a number is the SD of that of every coefficient and the intercept,
        in the table's units; a dict has SDs by name, ``{"x": 2.5, "Intercept": 10}``, and names not
        in it have no prior. Those of `zero_inflation`, `dispersion`, `nominal` are named as in
        `conf_int`, ``"zero: x"``, and a number is not theirs; cutpoints of ordinal models have
        none. The estimates are then the posterior's mode, which separated data have too. By ML
        the coefficients are maximised over, by REML integrated out with their prior ("exact", "cg"
        and "laplace").
    sd_prior : {"gamma"}, GammaPrior or dict, optional
        Prior of the terms' SDs: "gamma" is ``GammaPrior()``, blme's, by which no SD is 0. A dict
        has them by the terms' names, and terms not in it have none. See `GammaPrior`, also for
        terms with several coefficients. Priors are for `fit`, not for batches, Parquet files, Dask
        and ``m_step="adam"``.

    Attributes
    ----------
    coef_ : ndarray of shape (n_fixed,)
    intercept_ : float
    fixed_effects_ : DataFrame
        estimate, std_error, z (or df and t), p, ci_lower, ci_upper by coefficient.
    zero_inflation_effects_, dispersion_effects_, nominal_effects_ : DataFrame or None
        The same of the model's other parts: logit of the probability of a zero, log of the family's
        parameter, shifts of the cutpoints.
    random_effects_, random_effects_std_ : dict of DataFrame
        Posterior means of each term's effects, level by coefficient, and their SDs given the
        coefficients.
    cov_re_ : dict of DataFrame
        Covariance matrix of each term.
    variance_components_ : DataFrame
        group, name, variance, sd, corr, std_error (of the sd or corr).
    sigma_ : float
        Residual SD, in units of y; nan for families without one. Where `dispersion` models it, the
        root mean square of the rows' own.
    family_params_ : dict
        Dispersion, shape or scale by name; ``"cutpoints"`` of an ordinal model.
    loglik_, aic_, bic_ : float
        As lme4 defines them. By quadrature the likelihood is exact, by laplace its approximation;
        by cg the log-determinant is stochastic Lanczos quadrature's, but that of coupled levels,
        related ones or those that rows have together, a factor's up to 2,500 effects. By hmc and
        nuts it is estimated when it is first asked for, on a path from Laplace's approximation to
        the posterior: until then the model keeps the engine's rows in memory, some 10 numbers for
        each row of the table. They are not saved: read `loglik_` before a model is.
    log_posterior_ : float
        With priors, `loglik_`, which is without them, plus the log prior densities at the estimate
        (an improper one's has no constant); by REML the coefficients are integrated out of both.
        Else `loglik_`.
    loglik_error_ : float
        Standard error of `loglik_`: Monte Carlo's, and of the path's quadrature; by quadrature 0,
        or by how much `loglik_` still moved with the number of points.
    e_step_ : EStep
        The E-step that ran, where `e_step` left it open, as ``HMC(backend='numpy')``,
        ``Quadrature()`` or ``Exact()`` by "auto". Of a model without random effects it is what
        maximises its likelihood: ``Exact()`` for the Gaussian family, ``Laplace()`` for others.
    n_iter_ : int
    converged_ : bool
    history_ : DataFrame
        One row per iteration: loss (-log p(y, b | theta), of several draws b the mean), loglik
        (with priors the log posterior), acceptance_rate, step (in standard errors), seconds, and
        every parameter.
    mc_error_ : Series
        Monte Carlo standard error of each parameter's estimate; 0 for the exact E-step. Here and in
        `history_` the coefficients of columns that are kept sparse (see `fit`) are left out.
    std_mc_error_ : Series
        Monte Carlo standard error of each parameter's standard error; 0 for the exact E-step, nan
        where it is not known.
    random_effects_mc_error_, random_effects_std_mc_error_ : dict of DataFrame, or None
        Monte Carlo standard errors of `random_effects_` and `random_effects_std_`, by the E-steps
        "hmc" and "nuts"; None by the others and after `update`.
    result_ : EMResult
        The engine's own record; ``result_.status`` says in words how the fit ended.
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), J. Stat. Software 67(1).
    Gilmour, Thompson & Cullis (1995), Biometrics 51, 1440-1450.
    McCulloch (1997), J. Am. Stat. Assoc. 92, 162-170.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    >>> model.coef_.round(2)
    array([10.47])
    >>> model.variance_components_["sd"].round(2).tolist()
    [24.74, 5.92, nan, 25.59]
    """

    _parameter_constraints = {
        **BaseMixedEffects._parameter_constraints,
        "dof": [StrOptions({"satterthwaite", "kenward-roger"}), None],
        "zero_inflation": [str, list, tuple, None],
        "dispersion": [str, list, tuple, None],
    }

    def __init__(
        self,
        random_effects=None,
        *,
        fixed_effects=None,
        fit_intercept=True,
        family="gaussian",
        method="auto",
        e_step="auto",
        m_step="auto",
        max_iter=200,
        tol="auto",
        handle_unknown="population",
        warm_start=False,
        random_state=None,
        verbose=0,
        device=None,
        offset=None,
        dof=None,
        missing="error",
        zero_inflation=None,
        dispersion=None,
        nominal=None,
        coef_prior=None,
        sd_prior=None,
    ):
        self.random_effects = random_effects
        self.fixed_effects = fixed_effects
        self.fit_intercept = fit_intercept
        self.family = family
        self.method = method
        self.e_step = e_step
        self.m_step = m_step
        self.max_iter = max_iter
        self.tol = tol
        self.handle_unknown = handle_unknown
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.offset = offset
        self.missing = missing
        self.coef_prior = coef_prior
        self.sd_prior = sd_prior
        self.dof = dof
        self.zero_inflation = zero_inflation
        self.dispersion = dispersion
        self.nominal = nominal

    @nan_where_missing
    def predict(self, X, return_std=False, include_random=True, component=None):
        """Predict the mean response, row by row.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
            Unseen or missing levels get the mean over their factor's distribution of effects, or
            the typical level's, by `handle_unknown`.
        return_std : bool, default=False
            Also return the SD of a new observation: residual, effects and coefficients together. A
            term that is left out, or a level that is unseen, adds its prior variance.
        include_random : bool or list of str, default=True
            False predicts at population level; a list names the terms whose effects count. Those of
            the others are like an unseen level's, also with ``handle_unknown="error"``.
        component : {"conditional", "zero", "dispersion"}, optional
            A part of it in the mean's place: the family's own mean, without the zeros of
            `zero_inflation` (of a hurdle that of the other rows); the probability that a row is one
            of these zeros; or the family's parameter that `dispersion` models. As the mean, it is
            averaged over the effects.

        Returns
        -------
        mean : ndarray of shape (n_rows,)
        std : ndarray of shape (n_rows,)
            Only with `return_std`.

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy; for an unseen
            level, with handle_unknown="error".

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> model.predict(X[:2]).round(1)
        array([253.7, 273.3])
        >>> mean, std = model.predict(X[:2].assign(Subject=999), return_std=True)
        >>> mean.round(1), std.round(1)
        (array([251.4, 261.9]), array([36.2, 37. ]))
        """
        _, design, include = self._new_design(X, include_random)
        if component is not None and return_std:
            raise ValueError(
                f"return_std=True is of the response, not of component={component!r}: leave one of "
                "the two."
            )
        mean = self._expected(design, include, self.result_, component)
        if not return_std:
            return mean
        model, result = self._fitted, self.result_
        family, params = self._response_family(), model.parameters(result, design)
        variance = prediction.predict_variance(
            design, result, family, include, params, model.n_predictors
        )
        return mean, np.sqrt(variance)

    def _expected(self, design, include, result, component=None):
        """The mean response of rows at a result, or its part `component`, [n_rows]."""
        family, model = self._response_family(), self._fitted
        if component is not None:
            family = component_of(family, component)
        params, prior = model.parameters(result, design), self.handle_unknown != "typical"
        return prediction.predict_mean(
            design, result, family, include, params, model.n_predictors, prior
        )

    def _check_target(self, y):
        ordered = as_ordered(y)
        names = None if ordered is None else ordered.categories
        if names is not None and not (is_numeric_dtype(names) and names.is_monotonic_increasing):
            raise ValueError(
                f"y: the categories {listed(names[:3])}, ... are not numbers in their "
                "order, and have no mean to predict: use MixedEffectsClassifier(family='ordinal'), "
                "or their codes."
            )
        family, several = self._of_columns(y), _n_columns(y) > 1
        bounded = family is not None and family.open_ended
        try:
            if bounded:
                y = check_array(y, ensure_all_finite=False, dtype=np.float64, input_name="y")
            else:
                several = several and family is not None and family.columns != (1,)
                y = _check_y(y, multi_output=several, y_numeric=True, estimator=self)
                y = y.astype(np.float64, copy=False)
        except ValueError as error:
            if "could not convert" not in str(error):
                raise
            raise ValueError(f"y: {error}. Labels are for MixedEffectsClassifier.") from error
        finite = y[np.isfinite(y)] if bounded else y
        check_magnitude("y", max(finite.max(initial=0.0), -finite.min(initial=0.0)))
        return y

    def _of_columns(self, y):
        """The family for a y of so many columns; None where its parameters are wrong."""
        try:
            family = resolve_family(self.family)
        except ValueError:
            return None
        return family.of_columns(_n_columns(y))

    def _unknown(self, y):
        family = self._of_columns(y)
        if family is not None and family.open_ended and _n_columns(y) > 1:
            return np.asarray(pd.isna(np.asarray(y))).all(axis=1)
        return super()._unknown(y)

    def _resolve_family(self, y):
        family = resolve_family(self.family).of_columns(_n_columns(y))
        if family.classes == "unordered":
            raise ValueError(
                "family='categorical': classes without an order have no mean to predict; use "
                "MixedEffectsClassifier."
            )
        if family.classes == "two" and not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"family='bernoulli': y must be 0 or 1 in a regressor, not "
                f"{y[~np.isin(y, (0, 1))][0]:g}: recode it, or use MixedEffectsClassifier."
            )
        return family

    @score_where_known
    def score(self, X, y, sample_weight=None):
        """R^2 of the predicted mean; two columns of counts are proportions weighted by trials.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,), or (n_rows, 2) of counts (successes, failures)
        sample_weight : array-like of shape (n_rows,), optional

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> round(model.score(X, y), 2)
        0.83
        """
        return super().score(X, *self._scored(y, sample_weight))

    def _scored(self, y, sample_weight):
        """(y, weights) of which R^2 is, from a y of any columns."""
        family = self._fitted.family
        if _n_columns(y) == 1:
            return y, sample_weight
        if family.is_custom:
            raise ValueError(
                f"score: predictions know nothing of {listed(family.row_data) or 'columns'}, which "
                "rows have besides y: use loglik_, or compare y with predictions of your own."
            )
        if family.open_ended:
            raise ValueError(
                "score: y has bounds, and R^2 wants values: use loglik_, or score the rows that "
                "are known."
            )
        response = family.bind(y, sample_weight)
        trials = response.with_data({"trials": 1.0}, 1)["trials"]
        return response.y, response.weights * trials

    def _residual_variance(self, X, response=None, trials=None):
        """Variance of y [n_rows] about its prediction; a response has the row data.

        Given eta at its posterior mean where effects are known, and else of a new observation.
        """
        _, design, include = self._new_design(X)
        family, result, d = self._response_family(), self.result_, self._fitted.n_predictors
        trials = np.ones(design.n_rows) if trials is None else trials
        params = self._fitted.parameters(result, design)
        params = params if response is None else response.with_data(params)
        eta = latent.linear_predictor(design, result, d=d)
        found = family.variance(eta[..., None], params)[:, 0] / trials
        _, new = latent.new_effects(design, result, None, slice(0, design.n_rows), d)
        if new.any():
            every = prediction.predict_variance(design, result, family, include, params, d, trials)
            found = np.where(new, every, found)
        return found

    def _response_family(self):
        family, classes = self._fitted.family, self._fitted.classes
        return _Ratings(family, classes) if family.classes == "ordered" else family


def _n_columns(y):
    """Number of columns of a response of any container."""
    shape = np.asarray(y).shape
    return shape[1] if len(shape) == 2 else 1


class _Ratings:
    """An ordinal family in the units of its ratings."""

    mean_is_eta = scale_equivariant = False
    classes, unaveraged = "ordered", ()

    def __init__(self, family, ratings):
        self.family = family
        self.ratings = ratings

    density = property(lambda self: self.family.density)
    link = property(lambda self: self.family.link)

    def limits(self, params):
        return self.ratings[0], self.ratings[-1]

    def mean(self, eta, params):
        return self.family.mean(eta, params, self.ratings)

    def variance(self, eta, params):
        return self.family.variance(eta, params, self.ratings)
