"""Tests of linear combinations of the coefficients."""

from dataclasses import replace

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import check_level
from sklmm._fitted import hypotheses, robust, tables
from sklmm._fitted.clusters import nested, outermost
from sklmm._fitted.contrasts import check_dense, completed, joint_test
from sklmm.result import Status


class Hypotheses:
    """Methods of a fitted `BaseMixedEffects` that test linear combinations of the coefficients."""

    def linear_hypothesis(
        self, L, rhs=None, X=None, y=None, sample_weight=None, *, cov=None, cluster=None
    ):
        """Wald's test of linear combinations of the coefficients, all at once: L beta = rhs.

        By ``dof="satterthwaite"`` or ``"kenward-roger"`` it is an F test with that rule's degrees
        of freedom, else chi-square. With `cov` it is an approximate Hotelling's T^2 test by a
        cluster-robust covariance, the "HTZ" of R's clubSandwich: of one combination it is the t
        test that `fixed_effects_table` has of a coefficient, squared.

        Parameters
        ----------
        L : str, dict, Series, list of these, DataFrame or array-like of shape (q, n_coefficients)
            Equations such as ``"Days = 10"`` or ``"x - z = 0"``, which formulaic reads (names that
            are numbers in backquotes); weights by the coefficients' names, of one combination, of
            several in a list or, as a DataFrame, one a row; or a matrix.
            Names, and a matrix's columns, are those of the rows of `fixed_effects_`; coefficients
            of the model's other parts follow them, named as in `conf_int`.
        rhs : float or array-like of shape (q,), optional
            What the combinations are if the hypothesis is true, 0 by default; of equations it is
            what they say.
        X, y, sample_weight
            The rows of the fit, for `cov`; y is None where a formula names it.
        cov : {None, "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}, default=None
            The cluster-robust covariance, as in `fixed_effects_table`; None is the model's own.
        cluster : str, int or array-like of shape (n_rows,), optional
            Its clusters, likewise.

        Returns
        -------
        DataFrame
            One row: F, df and ddf, the numerator's and the denominator's degrees of freedom, and p;
            or chi2, df and p. df counts combinations that do not follow from others. Of columns
            that the fit left out, those without a standard error, all is nan. With `cov` the test
            is F whatever `dof` is, and nan where the clusters are too few for so many combinations.

        Raises
        ------
        ValueError
            For names that are no coefficients, equations that are not linear or contradict each
            other, and sparse columns; with `cov` as `fixed_effects_table` does, and for a test of
            more combinations at once than its degrees of freedom can be summed for.

        References
        ----------
        Fai & Cornelius (1996), J. Stat. Comput. Simul. 54, 363-378.
        Kenward & Roger (1997), Biometrics 53, 983-997.
        Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36, 672-683.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"], dof="kenward-roger").fit(X, y)
        >>> model.linear_hypothesis("Days = 10").round(3)
               F  df   ddf      p
        L  0.091   1  17.0  0.766

        Slopes vary by subject, and a model without them finds too much. A robust test does not:

        >>> plain = MixedEffectsRegressor(["Subject"], dof="kenward-roger").fit(X, y)
        >>> plain.linear_hypothesis("Days = 8").round(3)
               F  df    ddf      p
        L  9.412   1  161.0  0.003
        >>> plain.linear_hypothesis("Days = 8", X=X, y=y, cov="CR2").round(3)
               F  df   ddf      p
        L  2.548   1  17.0  0.129
        """
        check_is_fitted(self)
        model, result = self._fitted, self.result_
        check_dense(model)
        L, values = hypotheses.combinations(model, L)
        if values is None:
            values = hypotheses.right_sides(rhs, len(L))
        elif rhs is not None:
            raise ValueError(f"rhs={rhs!r}: equations have their own right-hand sides: leave it.")
        hypotheses.check_consistent(L, values)
        by = self._robust(X, y, sample_weight, cov, cluster)
        found = joint_test(model, result, completed(model, result, L), values, by)
        return hypotheses.test_table({"L": found}, by is None and result.dof_root is None)

    def joint_tests(self, type=3, X=None, y=None, sample_weight=None, *, cov=None, cluster=None):
        """Wald's test of each term of the fixed part, as an analysis of variance has them.

        Type III tests a term beside all others, each level of the other factors counting as much as
        any other: SAS's and lmerTest's, and car's with sum-to-zero codes, whatever the codes of the
        formula are. Numeric columns are taken as they are, so that a main effect beside its product
        with x is tested at x = 0: center x for its mean. Type II tests a term beside those
        terms that it is not in, and supposes that those that it is in are 0, as car does.

        Parameters
        ----------
        type : {3, 2, "III", "II"}, default=3
        X, y, sample_weight, cov, cluster
            For tests by a cluster-robust covariance, as in `linear_hypothesis`. As in car, the
            hypotheses of type II depend on the covariance, and so on `cov`.

        Returns
        -------
        DataFrame
            F, df, ddf and p, or chi2, df and p, as in `linear_hypothesis`; one row a term of the
            formula, or a column where there is none. Of unordered classes a row tests the
            coefficients of all classes. Where cells without rows leave a part of a hypothesis
            undetermined df is that of the rest, and 0 without any.

        Raises
        ------
        ValueError
            For another `type`, and for sparse columns; with `cov` as `fixed_effects_table`.

        References
        ----------
        Fox & Weisberg (2019), An R Companion to Applied Regression, sec. 5.3.4.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_wine
        >>> table = load_wine(as_frame=True).frame
        >>> formula = "rating ~ temp * contact + (1 | judge)"
        >>> model = MixedEffectsRegressor.from_formula(formula, dof="kenward-roger").fit(table)
        >>> model.joint_tests().round(4)
                            F  df   ddf       p
        temp          46.2587   1  60.0  0.0000
        contact       15.1049   1  60.0  0.0003
        temp:contact   0.4196   1  60.0  0.5196
        """
        check_is_fitted(self)
        kinds = {3: 3, 2: 2, "3": 3, "2": 2, "III": 3, "II": 2}
        if type not in kinds:
            raise ValueError(f"type={type!r} is not available: use 3 or 2.")
        model, result = self._fitted, self.result_
        check_dense(model)
        by = self._robust(X, y, sample_weight, cov, cluster)
        tests = hypotheses.term_tests(model, result, kinds[type], by)
        return hypotheses.test_table(tests, by is None and result.dof_root is None)

    def fixed_effects_table(
        self, X=None, y=None, sample_weight=None, *, level=0.95, cov=None, cluster=None
    ):
        """`fixed_effects_` with intervals of another level, or by cluster-robust standard errors.

        Those hold also where the model's covariance of the rows of a cluster is wrong: residuals
        that are correlated in time or of different variances, slopes that vary and are not in the
        model. The estimates are the model's. As the R package clubSandwich has it, the working
        covariance is that of the fit, the tests are t tests with Satterthwaite's degrees of freedom
        (Bell & McCaffrey's), and clusters must hold all rows of each level of every term.

        Parameters
        ----------
        X, y, sample_weight
            The rows of the fit, for `cov`; y is None where a formula names it.
        level : float, default=0.95
            Of the confidence intervals.
        cov : {None, "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}, default=None
            None is the model's own covariance. "CR2", of least bias, is the one to take. "CR0" is
            the plain sandwich, too small for few clusters; "CR1", "CR1p" and "CR1S" multiply it by
            J / (J - 1), J / (J - p) and J (N - 1) / ((J - 1) (N - p)), for J clusters, p
            coefficients and N rows; "CR3" is near the jackknife's, and rather too large.
        cluster : str, int or array-like of shape (n_rows,), optional
            A term's name, a column of X, or one label a row. None is the grouping factor within
            whose levels those of all terms are nested.

        Returns
        -------
        DataFrame
            As `fixed_effects_`; with `cov` df and t are in the place of z.

        Raises
        ------
        ValueError
            For a `cov` of a model that is not Gaussian, or has `coef_prior`, sparse columns, a
            residual SD by row, related levels or a perfect fit; for clusters that a level of a term
            crosses, and for rows that are not those of the fit.

        References
        ----------
        Bell & McCaffrey (2002), Survey Methodology 28, 169-181.
        Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36, 672-683.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["Subject"]).fit(X, y)
        >>> model.fixed_effects_["std_error"].round(2).to_dict()
        {'Intercept': 9.75, 'Days': 0.8}
        >>> table = model.fixed_effects_table(X, y, cov="CR2", cluster="Subject")
        >>> table["std_error"].round(2).to_dict()
        {'Intercept': 6.82, 'Days': 1.55}
        """
        check_is_fitted(self)
        check_level("level", level)
        result = self.result_
        by = self._robust(X, y, sample_weight, cov, cluster)
        if by is not None:
            covariance, dof = by.coefficients()
            whole = result.natural_cov.copy()
            whole[: len(dof), : len(dof)] = covariance
            result = replace(result, natural_cov=whole, dof=dof)
        return tables.fixed_effects_table(self._fitted.labels, result, level)

    def _robust(self, X, y, sample_weight, kind, cluster):
        """The `Robust` covariance of the coefficients by clusters; None is the model's own."""
        if kind is None:
            if cluster is not None:
                raise ValueError(
                    f"cluster={cluster!r} is for a robust covariance: give cov='CR2' too."
                )
            return None
        if kind not in robust.KINDS:
            known = ", ".join(map(repr, robust.KINDS))
            raise ValueError(f"cov={kind!r} is not available: use {known}, or None.")
        self._check_robust(kind)
        if X is None:
            raise ValueError(
                f"cov={kind!r} needs the rows of the fit, which a model does not keep: give X=X, "
                f"y=y, cov={kind!r}, cluster=...."
            )
        design, response = self._training(X, y, sample_weight)
        if cluster is None:
            codes = outermost(design.blocks)
            if codes is None:
                raise ValueError(
                    "cluster=None is the factor in which all others are nested, and this model has "
                    "none: name a column of clusters."
                )
        else:
            codes, _ = self._groups(cluster, "cluster", X, y, sample_weight, design)
        # Without gaps.
        codes = np.unique(codes, return_inverse=True)[1].ravel()
        for term, block in zip(self._fitted.spec.terms, design.blocks, strict=True):
            if not nested(block, codes):
                raise ValueError(
                    f"cluster: levels of the term {term.name!r} have rows in several clusters, so "
                    "that clusters are not independent: take clusters in which they are nested, "
                    "or cov=None, the model's own."
                )
        return robust.Robust(design, response, self.result_, codes, kind)

    def _check_robust(self, kind):
        """Raise ValueError for a model whose coefficients are not generalised least squares."""
        family, spec = self._fitted.family, self._fitted.spec
        if not family.closed_form:
            what = "a model of the dispersion" if spec.models else repr(family.name)
            raise ValueError(
                f"cov={kind!r} is for family='gaussian' or 'lognormal' with one residual SD, whose "
                f"coefficients are linear in y given the variances, and not for {what}: use "
                "cov=None, and check(X, y) for whether the model's own covariance is to be trusted."
            )
        what = {
            "coef_prior: the estimates are shrunken by a prior": self.coef_prior is not None,
            "X: the model keeps sparse columns apart": bool(spec.sparse),
            "fixed_effects: the model has no coefficients": not self.result_.rank,
            "y: the fit is a perfect one, without residuals": self.result_.status is Status.PERFECT,
        }
        related = [t.name for t in spec.terms if t.effect.relation is not None]
        what[f"random_effects: the levels of {related} are related across clusters"] = bool(related)
        for why, holds in what.items():
            if holds:
                raise ValueError(f"{why}, and cov={kind!r} is not for that: use cov=None.")
