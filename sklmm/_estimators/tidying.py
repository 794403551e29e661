"""Estimates, criteria and rows as tables with broom.mixed's column names."""

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from sklmm._estimators.input import check_level, response_name, take_rows
from sklmm._fitted import latent, tidying
from sklmm._tables import Table

KINDS = ("fixed", "ran_pars", "ran_vals")


class Tidying:
    """Methods of a fitted `BaseMixedEffects` that make tidy tables."""

    def tidy(self, effects=("fixed", "ran_pars"), *, conf_int=False, conf_level=0.95):
        """Estimates in broom.mixed's columns, which are the same for every model.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or list of them, default=("fixed", "ran_pars")
            "fixed" are the coefficients, of the model's other parts too. "ran_pars" are SDs,
            correlations and the family's parameters. "ran_vals" are the effects of each level, with
            their posterior SDs given the coefficients.
        conf_int : bool, default=False
            Whether there are columns of the Wald intervals, those of `conf_int`.
        conf_level : float, default=0.95

        Returns
        -------
        DataFrame
            effect, component ("cond", "zi", "disp" or "nominal"), group, level (with "ran_vals"),
            term, estimate, std.error, statistic, df, p.value, conf.low, conf.high. df is nan where
            tests are normal ones.

        Raises
        ------
        ValueError
            For another kind of effects, or a `conf_level` that is none.

        References
        ----------
        Bolker & Robinson, R package broom.mixed 0.2.9.

        Examples
        --------
        >>> import pandas as pd
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> slopes = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> slopes.tidy()[["effect", "group", "term", "estimate", "std.error"]].round(2)
             effect     group                 term  estimate  std.error
        0     fixed       NaN            Intercept    251.41       6.82
        1     fixed       NaN                 Days     10.47       1.55
        2  ran_pars   Subject        sd__Intercept     24.74       5.84
        3  ran_pars   Subject             sd__Days      5.92       1.25
        4  ran_pars   Subject  cor__Intercept.Days      0.07       0.33
        5  ran_pars  Residual      sd__Observation     25.59       1.51

        Tables of several models are one:

        >>> plain = MixedEffectsRegressor(["Subject"]).fit(X, y)
        >>> both = pd.concat({"plain": plain.tidy(), "slopes": slopes.tidy()}, names=["model"])
        >>> both.query("term == 'Days'")["std.error"].round(2).droplevel(1).to_dict()
        {'plain': 0.8, 'slopes': 1.55}
        """
        check_is_fitted(self)
        effects = [effects] if isinstance(effects, str) else list(effects)
        unknown = [kind for kind in effects if kind not in KINDS]
        if unknown or not effects:
            raise ValueError(
                f"effects={(unknown or [effects])[0]!r} is not available: use "
                f"{', '.join(map(repr, KINDS))}."
            )
        check_level("conf_level", conf_level)
        level = conf_level if conf_int else None
        return tidying.tidy(self._fitted, self.result_, effects, level)

    def glance(self):
        """Size and criteria of the fit as one row, in broom.mixed's columns.

        Returns
        -------
        DataFrame
            nobs, sigma, logLik, AIC, BIC, REMLcrit, deviance, df.residual. Of REML fits REMLcrit is
            -2 logLik, and of others deviance: it is that of the likelihood with the effects
            integrated out, where broom.mixed has for `glmer` the sum of squared deviance residuals.
            df.residual is the number of observations less that of estimated parameters. What a fit
            has not is nan.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml").fit(X, y)
        >>> model.glance()[["nobs", "AIC", "deviance", "df.residual"]].round(1)
           nobs     AIC  deviance  df.residual
        0   180  1763.9    1751.9        174.0
        """
        check_is_fitted(self)
        return tidying.glance(self.result_, self.loglik_)

    def augment(self, X, y=None):
        """The table with predictions and residuals beside its columns, in broom.mixed's names.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
            Rows of the fit, or new ones.
        y : array-like of shape (n_rows,), optional
            Response; None leaves out its column and the residuals, but for that of a formula.

        Returns
        -------
        DataFrame
            The columns of X and y, with ".fitted" and ".fixed", the linear predictor with and
            without the random effects, ".mu", the predicted mean, and ".resid", y - .mu. Of
            proportions y is the share of successes, of two classes the indicator of the second one,
            of ratings .mu is the mean rating. `predict` averages .mu over the posterior. An array's
            columns are x0, x1 and so on, a sparse matrix's are left out, and y is ".y" where a
            column of X has its name.

        Raises
        ------
        ValueError, TypeError
            As in `predict`; for classes of which there are more than two, which have no mean.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> model.augment(X, y).round(1).head(2)
           Days  Subject  Reaction  .fitted  .fixed    .mu  .resid
        0     0      308     249.6    253.7   251.4  253.7    -4.1
        1     1      308     258.7    273.3   261.9  273.3   -14.6
        """
        check_is_fitted(self)
        bare, known = self._without_response(X)
        if y is None and known:
            _, y = self._take_response(X, y)
        mu = self._means(bare)
        # What misses a value of the model's has a mean of nan.
        some = ~np.isnan(mu)
        rows = bare if some.all() else take_rows(bare, some)
        columns = {}
        for name, include in ((".fitted", True), (".fixed", False)):
            _, design, wanted = self._new_design(rows, include)
            d = self._fitted.n_predictors
            eta = latent.linear_predictor(design, self.result_, wanted, d)
            columns[name] = np.full(len(mu), np.nan)
            columns[name][some] = eta if d == 1 else eta[:, 0]
        columns[".mu"] = mu
        table = self._table(bare)
        if y is not None:
            name, values = response_name(y), self._values(y)
            # A column of X, which may have this name, stays as it is.
            columns = {".y" if name in table else name: values, **columns, ".resid": values - mu}
        return Table(table.assign(**columns))

    def _table(self, X):
        """X as a DataFrame; of a sparse matrix its rows alone."""
        if isinstance(X, pd.DataFrame):
            return X
        if issparse(X):
            return pd.DataFrame(index=range(X.shape[0]))
        return pd.DataFrame(X, columns=_check_feature_names_in(self))

    def _means(self, X):
        """The predicted mean [n_rows]; of two classes that of the second one's indicator."""
        if not hasattr(self, "predict_proba"):
            return self.predict(X)
        if self._fitted.family.classes != "two":
            raise ValueError(
                f"augment: the {len(self.classes_)} classes of family="
                f"{self._fitted.family.name!r} have no mean and no residuals: use predict_proba(X)."
            )
        return self.predict_proba(X)[:, np.flatnonzero(self._sorted == 1)[0]]

    def _values(self, y):
        """y in the numbers of the mean [n_rows], nan where it is missing."""
        known = ~self._unknown(y)
        y = y if known.all() else take_rows(y, known)
        if self._fitted.family.open_ended and np.ndim(y) > 1:
            raise ValueError(
                "y: it has bounds, and residuals want values: leave y out, or see "
                "quantile_residuals."
            )
        if hasattr(self, "predict_proba"):
            values = np.ravel(np.asarray(y)) == self._fitted.classes[1]
        else:
            values = self._scored(y, None)[0]
        out = np.full(len(known), np.nan)
        out[known] = np.ravel(np.asarray(values, float))
        return out
