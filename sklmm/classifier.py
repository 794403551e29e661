"""`MixedEffectsClassifier`: the public estimator for binary, unordered and ordered classes."""

import numpy as np
from scipy.special import logit
from scipy.stats import norm
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted, column_or_1d

from sklmm._estimators.base import BaseMixedEffects
from sklmm._estimators.input import as_ordered
from sklmm._estimators.new_rows import nan_where_missing, score_where_known
from sklmm._estimators.predictive import Residuals
from sklmm._fitted import prediction
from sklmm.families import Ordinal, resolve_family

_FAMILIES = ("bernoulli", "categorical", "ordinal")


def _is_binary(estimator):
    check_is_fitted(estimator)
    if len(estimator.classes_) != 2:
        raise AttributeError("decision_function is for two classes: use predict_proba.")
    return True


class MixedEffectsClassifier(ClassifierMixin, Residuals, BaseMixedEffects):
    r"""Classification with crossed or nested random effects, at the true maximum likelihood.

    .. math::
        \eta_i = x_i^T \beta + \alpha + \sum_k z_{ik}^T b_k[j_k(i)], \quad
        b_k[j] \sim N(0, \Sigma_k), \quad y_i \sim \mathrm{Family}(\eta_i)

    Two classes: P(second class) = logistic(eta). More: multinomial logit, with coefficients and
    effects for each class but the first. ``family="ordinal"``: P(y <= c) = logistic(theta_c - eta).

    Classes are sorted. An ordinal model has the order of numbers, or of an ordered categorical
    (pandas', polars' Enum), and refuses other text.

    Parameters
    ----------
    random_effects : list of str, int or RandomEffect, optional
        As in `MixedEffectsRegressor`.
    fixed_effects : list of str or int, or str, optional
        Columns of the fixed part, or a formula, as in `MixedEffectsRegressor`.
    fit_intercept : bool, default=True
        An ordinal model always has its cutpoints.
    family : {"auto", "bernoulli", "categorical", "ordinal"} or Family, default="auto"
        "auto" is "bernoulli" for two classes and "categorical" for more. ``Bernoulli("probit")``
        and ``Ordinal("probit")`` change the link.
    method : {"auto", "reml", "ml"}, default="auto"
        "auto" is maximum likelihood; "reml" integrates the coefficients out with a flat prior.
    e_step : {"auto", "quadrature", "hmc", "nuts", "laplace"} or a configured E-step
        Default "auto", which takes "quadrature" for ML with one grouping factor of up to two
        effects a level, or nested factors, and few enough rows (see `Quadrature`); else `HMC`.
    m_step : {"auto"}, default="auto"
    max_iter : int, default=200
        EM iterations.
    tol : float or "auto", default="auto"
        The fit stops when the last step, and for HMC the Monte Carlo error, are below `tol`
        standard errors of every parameter; quadrature also after a longer step that is expected to
        end within `tol` / 30 of them from the maximum, but not before an SD near 0 is at rest.
        "auto" is 0.03 (0.001 for quadrature and laplace).
    handle_unknown : {"population", "typical", "error"}, default="population"
        At predict, the probabilities of an unseen or missing level: "population" averages them over
        the distribution of the levels' effects; "typical" is at effect 0, as lme4's; or it is an
        error.
    warm_start : bool, default=False
        Start from the previous fit's estimate.
    random_state : int, RandomState or None, default=None
        Seeds the chains.
    verbose : int, default=0
        Print progress lines; higher prints more of them.
    device : str, optional
        TensorFlow device such as "CPU:0" or "GPU:0", for "hmc", "nuts" and custom families; NumPy's
        steps run on the processor, and "CPU:0" imports no TensorFlow for them.
    offset : str or int, optional
        Column that is added to the linear predictor, with coefficient 1; not for "categorical".
    missing : {"error", "drop"}, default="error"
        As in `MixedEffectsRegressor`.
    nominal : str or list, optional
        Columns that shift each cutpoint of "ordinal" by itself, as ``clm(nominal = ~ z)``: a list,
        or a formula ``"~ z"``. Of ``fixed_effects=None`` they are left out.
    coef_prior : float or dict, optional
        SDs of normal priors of the coefficients, as in `MixedEffectsRegressor`; a name without its
        class stands for all classes. Separated data have finite estimates with it, for logistic
        models of standardised columns say 2.5.
    sd_prior : {"gamma"}, GammaPrior or dict, optional
        As in `MixedEffectsRegressor`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels, as scikit-learn's scorers expect, also those of an ordered categorical: the
        order of an ordinal model is in the names of its cutpoints, ``"bad|good"``.
    coef_ : ndarray of shape (n_fixed,), or (n_classes - 1, n_fixed) for "categorical"
    intercept_ : float, or ndarray of shape (n_classes - 1,) for "categorical"
        0 for "ordinal", whose ``family_params_["cutpoints"]`` stand in its place.
    fixed_effects_, random_effects_, random_effects_std_, cov_re_, variance_components_
        As in `MixedEffectsRegressor`.
    family_params_ : dict
    nominal_effects_ : DataFrame or None
        What the columns of `nominal` add to each cutpoint, as `fixed_effects_`.
    random_effects_mc_error_, random_effects_std_mc_error_, mc_error_, std_mc_error_
        As in `MixedEffectsRegressor`.
    loglik_, log_posterior_, aic_, bic_, loglik_error_
        As in `MixedEffectsRegressor`.
    e_step_, n_iter_, converged_, history_, result_
        As in `MixedEffectsRegressor`.
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Examples
    --------
    >>> from sklmm import MixedEffectsClassifier
    >>> from sklmm.datasets import load_toenail
    >>> X, y = load_toenail(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsClassifier(["patientID"], fixed_effects=["time"], e_step="laplace")
    >>> model.fit(X, y == "moderate or severe").coef_.round(2)
    array([-0.46])
    """

    def __init__(
        self,
        random_effects=None,
        *,
        fixed_effects=None,
        fit_intercept=True,
        family="auto",
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
        missing="error",
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
        self.nominal = nominal
        self.coef_prior = coef_prior
        self.sd_prior = sd_prior

    @nan_where_missing
    def predict_proba(self, X, include_random=True):
        """Probabilities of the classes, averaged over the effects.

        Of known levels over posterior draws; of levels that are unseen or missing, and of terms
        that are left out, over the distribution of the levels' effects, by integration, or by
        ``handle_unknown="typical"`` at effect 0.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True
            False predicts at population level; a list names the terms whose effects count.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsClassifier
        >>> from sklmm.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
        >>> model.fit(X, y > 3).predict_proba(X[:2]).round(1)
        array([[0.8, 0.2],
               [0.8, 0.2]])
        """
        _, design, include = self._new_design(X, include_random)
        return self._expected(design, include, self.result_)

    def _expected(self, design, include, result, component=None):
        """Probabilities [n_rows, K] of the `classes_` of rows at a result.

        The only part that a mean of classes has is the whole.
        """
        model = self._fitted
        params, prior = model.parameters(result, design), self.handle_unknown != "typical"
        found = prediction.predict_probabilities(
            design, result, model.family, include, model.n_predictors, params, prior
        )
        return found[:, self._sorted]

    @nan_where_missing
    def predict(self, X, include_random=True):
        """The most probable class of each row.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True

        Returns
        -------
        ndarray of shape (n_rows,)

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsClassifier
        >>> from sklmm.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
        >>> model.fit(X, y > 3).predict(X[:2])
        array([False, False])
        """
        # First, as it is what says of a classifier that it is not fitted.
        best = np.argmax(self.predict_proba(X, include_random), axis=1)
        return self.classes_[best]

    @available_if(_is_binary)
    @nan_where_missing
    def decision_function(self, X, include_random=True):
        """Log odds of the second class's averaged probability: positive where it is predicted.

        Of the probit link its probit. That of "cloglog" would be positive from .63 on.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True

        Returns
        -------
        ndarray of shape (n_rows,)

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsClassifier
        >>> from sklmm.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
        >>> model.fit(X, y > 3).decision_function(X[:2]) > 0
        array([False, False])
        """
        second = self.predict_proba(X, include_random)[:, 1]
        return norm.ppf(second) if self._fitted.family.link == "probit" else logit(second)

    @score_where_known
    def score(self, X, y, sample_weight=None):
        """Accuracy of the predicted classes.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,)
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
        >>> from sklmm import MixedEffectsClassifier
        >>> from sklmm.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsClassifier(["judge"], fixed_effects="~ temp", e_step="laplace")
        >>> round(model.fit(X, y > 3).score(X, y > 3), 2)
        0.88
        """
        return super().score(X, y, sample_weight)

    def _check_target(self, y):
        ordered = as_ordered(y)
        ordinal = self.family == "ordinal" or isinstance(self.family, Ordinal)
        if ordered is not None and ordinal:
            return ordered
        # Other families have sorted classes: their coefficients are told by classes_[1:].
        y = column_or_1d(y if ordered is None else np.asarray(ordered), warn=True)
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        # Ratings may be halves, which scikit-learn takes for no classes.
        if not ordinal:
            check_classification_targets(y)
        return y

    def _resolve_family(self, y):
        if isinstance(self.family, str) and self.family == "auto":
            n_classes = len(np.unique(y))
            return resolve_family("categorical" if n_classes > 2 else "bernoulli")
        family = resolve_family(self.family)
        if family.classes is None:
            raise ValueError(
                f"family={self.family!r} is not a family of classes: use 'auto', "
                f"{', '.join(map(repr, _FAMILIES))}, or MixedEffectsRegressor."
            )
        return family

    def _set_fitted(self, model, result):
        super()._set_fitted(model, result)
        # scikit-learn's scorers sort the labels by themselves.
        try:
            self._sorted = np.argsort(model.classes)
        except TypeError:
            # Of categories that have no order but their own.
            self._sorted = np.arange(len(model.classes))
        self.classes_ = model.classes[self._sorted]
