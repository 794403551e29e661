"""`MixedEffectsEncoder`: high-cardinality columns as their joint shrunken effects on the target."""

from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    process_routing,
)
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_y,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from sklmm._estimators.base import BaseMixedEffects
from sklmm._estimators.input import as_pandas, restoring
from sklmm.design.levels import find, group_column, learn_kind
from sklmm.design.terms import RandomEffect
from sklmm.families.parts import PARTS
from sklmm.regressor import MixedEffectsRegressor

#: Code of a missing label; an unknown one's is -1.
MISSING = -2
#: The least SD that is pinned, as a share of the largest, for an SD of 0 cannot be pinned.
LEAST_SD = 1e-4


class MixedEffectsEncoder(TransformerMixin, BaseEstimator):
    """Encode columns of labels by their random effects in a mixed model of the target.

    Every column is a crossed random intercept, ``y ~ 1 + (1 | column_1) + (1 | column_2) + ...``,
    and every label becomes its effect's posterior mean: shrunken by the column's own variance, as
    in scikit-learn's `TargetEncoder`, and free of what the other columns explain, as there it is
    not. 0 is the population's effect. Of two classes the target is the indicator of the second, and
    of more there is a model of each class's.

    Parameters
    ----------
    estimator : MixedEffectsRegressor or MixedEffectsClassifier, optional
        The model; its terms and fixed effects are the encoder's to set. None is a Gaussian
        `MixedEffectsRegressor`, of indicators too. Effects are on the scale of its link.
    target_type : {"auto", "continuous", "binary", "multiclass"}, default="auto"
        What y is. "auto" takes whole numbers for classes, as scikit-learn does: ratings and counts
        need "continuous".
    cv : int, cross-validation generator or iterable, default=5
        Folds of `fit_transform`, which take the variances from all rows and the effects from the
        others; an int shuffles the rows. A splitter that needs groups, such as `GroupKFold`, is
        routed those of `fit_transform`.
    random_state : int, RandomState or None, default=None
        Of that shuffle.

    Attributes
    ----------
    estimators_ : list of MixedEffectsRegressor or MixedEffectsClassifier
        One, or one a class of "multiclass"; fitted to all rows, with the labels' ordinal codes as
        their table, and without columns of one label. None where no column or no target varies.
    categories_ : list of ndarray
        Labels of each column; a missing one is a label too.
    target_type_ : str
    classes_ : ndarray or None
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    See Also
    --------
    sklearn.preprocessing.TargetEncoder : Each column by itself.

    References
    ----------
    Micci-Barreca (2001), SIGKDD Explorations 3(1), 27-32.
    Pargent, Pfisterer, Thomas & Bischl (2022), Computational Statistics 37, 2671-2692.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklmm import MixedEffectsEncoder
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"store": rng.integers(30, size=600), "item": rng.integers(50, size=600)})
    >>> y = rng.normal(size=30)[X["store"]] + rng.normal(size=50)[X["item"]] + rng.normal(size=600)
    >>> encoder = MixedEffectsEncoder().set_output(transform="pandas")
    >>> encoder.fit_transform(X, y).shape
    (600, 2)
    >>> encoder.transform(pd.DataFrame({"store": [3, 999], "item": [4, 4]})).round(1).iloc[1, 0]
    np.float64(0.0)
    """

    _parameter_constraints = {
        "estimator": [BaseMixedEffects, None],
        "target_type": [StrOptions({"auto", "continuous", "binary", "multiclass"})],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, target_type="auto", cv=5, random_state=None):
        self.estimator = estimator
        self.target_type = target_type
        self.cv = cv
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Fit the model to all rows.

        ``fit(X, y).transform(X)`` encodes each row by effects that its own target has shaped: use
        `fit_transform` for the rows of the fit.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Labels of any type; a missing one is a label too.
        y : array-like of shape (n_rows,)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter, the value and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsEncoder
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> encoder = MixedEffectsEncoder(random_state=0)
        >>> encoder.fit(X[["Subject"]], y).transform(X[["Subject"]])[0].round(1)
        array([37.8])
        """
        with restoring(self):
            self._fit(X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y, **params):
        """Fit, and encode each row by a model of the other folds.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,)
        **params
            What the splitter `cv` is to be given, as `TargetEncoder` has it: ``groups`` of shape
            (n_rows,) for `GroupKFold`, say. It needs
            ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        ndarray of shape (n_rows, n_columns), or (n_rows, n_columns * n_classes)
            Column by column.

        Raises
        ------
        ValueError, TypeError
            As in `fit`, for folds that do not hold each row once, and for parameters that `cv` does
            not take or that scikit-learn is not set to route.

        Examples
        --------
        >>> from sklmm import MixedEffectsEncoder
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> encoder = MixedEffectsEncoder(random_state=0)
        >>> encoder.fit_transform(X[["Subject"]], y).shape
        (180, 1)

        Rows of one day stay in one fold:

        >>> import sklearn
        >>> from sklearn.model_selection import GroupKFold
        >>> encoder = MixedEffectsEncoder(cv=GroupKFold(5))
        >>> with sklearn.config_context(enable_metadata_routing=True):
        ...     encoder.fit_transform(X[["Subject"]], y, groups=X["Days"]).shape
        (180, 1)
        """
        _raise_for_params(params, self, "fit_transform")
        with restoring(self):
            return self._fit_transform(X, y, params)

    def get_metadata_routing(self):
        """Where scikit-learn routes what `fit_transform` is given besides X and y: to `cv`.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit_transform", callee="split")
        return MetadataRouter(owner=self).add(splitter=self.cv, method_mapping=mapping)

    def _fit_transform(self, X, y, params):
        check_consistent_length(X, params.get("groups"))
        options = process_routing(self, "fit_transform", **params).splitter.split
        codes, targets = self._fit(X, y)
        shuffle = {"shuffle": True, "random_state": self.random_state}
        shuffle = shuffle if self.cv is None or isinstance(self.cv, Integral) else {}
        cv = check_cv(self.cv, y, classifier=self.classes_ is not None, **shuffle)
        folds = list(cv.split(codes, y, **options))
        tested = np.concatenate([test for _, test in folds])
        if not np.array_equal(np.sort(tested), np.arange(len(codes))):
            raise ValueError(
                f"cv={self.cv!r}: its test folds must hold each row once, so that each is encoded "
                "once."
            )
        out = np.zeros((len(codes), codes.shape[1] * len(targets)))
        for k, target in enumerate(targets):
            # Of a fit without effects there is nothing to pin.
            model = self._model() if self.estimators_[k] is None else _pinned(self.estimators_[k])
            for train, test in folds:
                other = _fitted(model, codes.iloc[train], target[train])
                out[test, k :: len(targets)] = _encoded([other], codes.iloc[test])
        return out

    def transform(self, X):
        """Encode rows by the model of all rows of the fit.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Labels that the fit has not seen are 0; of another kind than the fit's (strings where it
            had integers), they are an error.

        Returns
        -------
        ndarray of shape (n_rows, n_columns), or (n_rows, n_columns * n_classes)

        Raises
        ------
        ValueError, TypeError
            For columns that are not those of the fit, or hold labels of another kind.

        Examples
        --------
        >>> from sklmm import MixedEffectsEncoder
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> encoder = MixedEffectsEncoder(random_state=0)
        >>> encoder = encoder.fit(X[["Subject"]], y)
        >>> encoder.transform(X[["Subject"]].assign(Subject=999))[0]
        array([0.])
        """
        check_is_fitted(self)
        return _encoded(self.estimators_, self._codes(self._validate(X, reset=False)))

    def get_feature_names_out(self, input_features=None):
        """Names of the encoded columns: their own, and of several classes also the class.

        Parameters
        ----------
        input_features : array-like of str, optional

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self, "n_features_in_")
        names = _check_feature_names_in(self, input_features)
        if self.target_type_ != "multiclass":
            return names
        return np.array([f"{n}_{c}" for n in names for c in self.classes_], object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    def _fit(self, X, y):
        """Codes [n_rows, n_columns] and targets of the rows of the fit."""
        if y is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None.")
        X = self._validate(X, reset=True)
        learnt = [_learnt(values, name) for name, values in self._columns(X)]
        self.categories_, self._kinds = map(list, zip(*learnt, strict=True))
        codes = self._codes(X)
        check_consistent_length(codes, y)
        targets = self._targets(y)
        self.estimators_ = [_fitted(self._model(), codes, target) for target in targets]
        return codes, targets

    def _model(self):
        """The unfitted model of all columns."""
        model = MixedEffectsRegressor() if self.estimator is None else clone(self.estimator)
        names = _check_feature_names_in(self)
        for part in PARTS:
            if getattr(model, part, None) is not None:
                raise ValueError(
                    f"estimator: its {part}={getattr(model, part)!r} is not for an encoder, which "
                    f"knows labels alone: use {part}=None."
                )
        return model.set_params(random_effects=[RandomEffect(n) for n in names], fixed_effects=[])

    def _codes(self, X):
        """Places of the labels in `categories_`, a DataFrame."""
        codes = {}
        for (name, values), labels, kind in zip(
            self._columns(X), self.categories_, self._kinds, strict=True
        ):
            labels = pd.Index(labels)
            places = find(labels[~labels.isna()], kind, values, _named(name))
            codes[name] = np.where(values.isna(), MISSING, places).astype(np.float64)
        return pd.DataFrame(codes)

    def _columns(self, X):
        """Names of the columns, and each one's labels."""
        names = _check_feature_names_in(self)
        columns = X.columns if isinstance(X, pd.DataFrame) else range(len(names))
        return [(n, group_column(X, c)) for n, c in zip(names, columns, strict=True)]

    def _validate(self, X, reset):
        """X as a frame, which keeps its columns' types, or as an array."""
        X = as_pandas(X)
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, skip_check_array=True, reset=reset)
            return X
        return validate_data(self, X, dtype=None, ensure_all_finite="allow-nan", reset=reset)

    def _targets(self, y):
        """What each model's target is, a list of arrays [n_rows]."""
        y, kind = _check_y(y, estimator=self), self.target_type
        if kind == "auto":
            kind = type_of_target(y, input_name="y")
        if kind not in ("continuous", "binary", "multiclass"):
            raise ValueError(
                f"Unknown label type: y is {kind!r}; it must be continuous, binary or multiclass. "
                "Set target_type to say which."
            )
        self.target_type_, self.classes_ = kind, None
        if kind == "continuous":
            return [_check_y(y, y_numeric=True, estimator=self)]
        self.classes_ = np.unique(y)
        if kind == "binary" and len(self.classes_) > 2:
            raise ValueError(
                f"target_type='binary': y has {len(self.classes_)} classes: use 'multiclass'."
            )
        wanted = self.classes_[-1:] if kind == "binary" else self.classes_
        return [(y == c).astype(float) for c in wanted]


def _learnt(values, name):
    """(Labels, of which a missing one is last, and their kind) of a column."""
    kind = learn_kind(values[~values.isna()], _named(name))
    labels = np.asarray(pd.factorize(values, sort=True)[1])
    if values.hasnans:
        labels = np.append(labels if labels.dtype.kind == "f" else labels.astype(object), np.nan)
    return labels, kind


def _named(name):
    return f"column {name!r} of X"


def _fitted(model, codes, target):
    """The model fitted without columns of one label; None where nothing varies."""
    terms = [effect for effect in model.random_effects if codes[effect.group].nunique() > 1]
    if not terms or np.ptp(target) == 0:
        return None
    return clone(model).set_params(random_effects=terms).fit(codes, target)


def _pinned(model):
    """The unfitted model with the variances of the fitted one, so that all folds shrink alike."""
    sds = {name: np.sqrt(table.iloc[0, 0]) for name, table in model.cov_re_.items()}
    scale = np.nanmax([*sds.values(), model.sigma_])
    if not scale > 0:
        return clone(model)
    least = LEAST_SD * scale
    effects = [RandomEffect(name, sd=float(max(sd, least))) for name, sd in sds.items()]
    out = clone(model).set_params(random_effects=effects)
    family = clone(model._fitted.family)
    if family.closed_form:
        out.set_params(family=family.set_params(sigma=float(max(model.sigma_, least))))
    return out


def _encoded(models, codes):
    """Codes [n_rows, n_columns] as their effects, 0 where there is none, column by column."""
    columns = []
    for name in codes.columns:
        for model in models:
            effects = {} if model is None else model.random_effects_
            table = effects.get(name, pd.DataFrame({"Intercept": []}, index=pd.Index([], float)))
            columns.append(table["Intercept"].reindex(codes[name]).fillna(0.0).to_numpy(float))
    return np.column_stack(columns)
