"""Tables of a fitted model: fixed effects, variances, iterations, intervals, criteria."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from sklmm._tables import Table
from sklmm.families.constraints import FREE, bounds_of
from sklmm.result import at_infinity, natural_entries, natural_names


@dataclass(frozen=True)
class Labels:
    """Names of an `EMResult`'s entries.

    coef; blocks, (term, coefficient names, values that are reported) a covariance, see
    `natural_entries`; family, the constraints of the family's parameters by name; cutpoints of an
    ordinal response, else None; sparse, names of the columns that are kept sparse, which come after
    `coef`, and order, the rows of the two in the table's order; parts, names of the last of `coef`,
    by the part of the model that they are of where it has a predictor of its own; centre, what the
    columns of cutpoints are less, where a result's are those of a row.
    """

    coef: list
    blocks: list
    family: dict
    cutpoints: list | None = None
    sparse: tuple = ()
    order: np.ndarray | None = None
    parts: dict = field(default_factory=dict)
    centre: tuple = ()

    @classmethod
    def of(cls, spec, blocks, response):
        """Labels of a fit; each name of a predictor is prefixed by its class, or parameter."""
        coef, classes, before = coefficient_names(spec, response), response.classes, [""]
        parts = part_coefficients(spec, response)
        if response.family.classes == "unordered":
            before = [f"{c}: " for c in classes[1:]]
        covariances = [block.covariance for block in blocks]
        pairs = block_labels(spec.every_term, covariances, before)
        cutpoints = None
        if response.family.classes == "ordered":
            cutpoints = [f"{a}|{b}" for a, b in pairwise(classes)]
        order = spec.order if spec.sparse else None
        family = dict(response.parameters)
        centre = dict(spec.models)["nominal"].centre if "nominal" in dict(spec.models) else ()
        return cls(coef, pairs, family, cutpoints, spec.sparse_names, order, parts, centre)

    @property
    def n_fixed(self):
        """Number of rows of the table of fixed effects, which are cutpoints and coefficients."""
        return len(self.coef) - 1 + len(self.cutpoints) if self.cutpoints else len(self.coef)

    @property
    def names(self):
        """Names of all reported parameters but the coefficients of sparse columns."""
        if not self.cutpoints:
            return [*self.coef, *natural_names(self.blocks, self.family)]
        return [*self.cutpoints, *self.coef[1:], *natural_names(self.blocks, self.beside)]

    @property
    def beside(self):
        """Names of the family's parameters besides the spacings of cutpoints."""
        return list(self.family)[len(self.cutpoints) - 1 :] if self.cutpoints else self.family

    @property
    def bounds(self):
        """(lower, upper) bounds [m] of the parameters `names`."""
        pairs = [FREE] * self.n_fixed
        pairs += [bounds for _, _, values in self.blocks for _, _, *bounds in values]
        pairs += [bounds_of(self.family[name]) for name in self.beside]
        lower, upper = np.array(pairs).reshape(-1, 2).T
        return lower, upper

    @property
    def matrix(self):
        """From (coef, natural) to the reported parameters: cutpoints for intercept and spacings.

        They are those where all columns are 0, of columns of theirs, too.
        """
        size = len(self.coef) + len(natural_names(self.blocks, self.family))
        out = np.eye(size)
        if not self.cutpoints:
            return out
        n, last = len(self.cutpoints), size - len(self.beside)
        first = last - (n - 1)
        cuts = np.zeros((n, size))
        cuts[:, 0] = -1.0
        cuts[1:, first:last] = np.tri(n - 1)
        cuts[:, last:] = np.kron(np.eye(n), -np.array(self.centre))
        return np.concatenate([cuts, out[1:first], out[last:]])

    def estimates(self, coef, natural_values):
        """The reported parameters [m] at some coefficients and `natural` values."""
        return self.matrix @ np.concatenate([coef, natural_values])

    def std_errors(self, variance):
        """Standard errors from a covariance [m, m] or, for independent entries, a variance [m]."""
        A, known = self.matrix, np.nan_to_num(variance)
        if variance.ndim == 1:
            out, unknown = A**2 @ known, np.isnan(variance)
        else:
            out = np.einsum("ia,ab,ib->i", A, known, A)
            unknown = np.isnan(np.diag(variance))
        out = np.sqrt(np.maximum(out, 0.0))
        out[(A != 0) @ unknown] = np.nan
        return out

    def undetermined(self, result):
        """Which of the reported parameters the design does not determine, bool [m]."""
        out = np.zeros(len(self.names), bool)
        found = result.undetermined
        # A family without cutpoints is reported as it is; with them it has nothing to look at.
        told = len(out) - self.n_fixed - len(self.beside)
        out[self.n_fixed : self.n_fixed + told] = found[:told] if len(found) else False
        if not self.cutpoints and len(found):
            out[self.n_fixed + told :] = found[told:]
        return out


def coefficient_names(spec, response):
    """Names of the coefficients of all predictors, each with its class, or its parameter's name."""
    names = list(spec.coef_names)
    if response.family.classes == "unordered":
        return [f"{c}: {name}" for c in response.classes[1:] for name in names]
    return names + [name for own in part_coefficients(spec, response).values() for name in own]


def part_coefficients(spec, response):
    """The same of the parts that have a predictor of their own, by part."""
    parts = {part: own for part, own in spec.models if own.terms}
    of = response.family.names if parts else ()
    return {
        part: [f"{parameter}: {column}" for column in own.coef_names]
        for parameter, (part, own) in zip(of, parts.items(), strict=True)
    }


def block_labels(terms, covariances, before=("",)):
    """(term name, coefficient names, reported values) of each block, a predictor after another.

    All names begin with `before`, of each predictor.
    """
    out = []
    for term, covariance in zip(terms, covariances, strict=True):
        kinds = ["sd" if i == j else "corr" for i, j in covariance.reported]
        for own in before:
            names, stem = tuple(own + name for name in term.cnames), term.left.stem
            told = covariance.named(names, stem and own + stem)
            values = zip(kinds, told, covariance.bounds, strict=True)
            out.append((term.name, names, tuple((kind, n, *b) for kind, n, b in values)))
    return out


def reported(labels, result):
    """Estimates and standard errors of all parameters as Series, and the number of coefficients."""
    n = labels.n_fixed
    estimate = labels.estimates(result.coef, result.natural)
    std, names = labels.std_errors(result.natural_cov), labels.names
    std[at_infinity(result, labels.matrix)] = np.inf
    if labels.sparse:
        rest = np.arange(n, len(names)) + len(labels.sparse)
        order = np.concatenate([labels.order, rest])
        estimate = np.concatenate([estimate[:n], result.sparse_coef, estimate[n:]])[order]
        std = np.concatenate([std[:n], result.sparse_std, std[n:]])[order]
        names = np.array([*names[:n], *labels.sparse, *names[n:]], object)[order]
        n += len(labels.sparse)
    return pd.Series(estimate, names), pd.Series(std, names), n


def fixed_effects_table(labels, result, level=0.95):
    """Estimate, std_error, z, p and Wald interval, one row a coefficient or cutpoint.

    A result with Satterthwaite's degrees of freedom has df and t in the place of z.
    """
    estimate, std, n = reported(labels, result)
    n -= sum(map(len, labels.parts.values()))
    return _tests(estimate[:n], std[:n], result.dof, level)


def part_effects_table(labels, result, names, level=0.95):
    """The same of another part of the model, whose coefficients are reported by `names`."""
    estimate, std = (own[names] for own in reported(labels, result)[:2])
    table = _tests(estimate, std, None, level)
    # Those of several cutpoints keep the names of these.
    if len({name.partition(": ")[0] for name in names}) == 1:
        names = [name.partition(": ")[2] for name in names]
    return table.set_axis(names).rename_axis("coefficient")


def _tests(estimate, std, dof, level):
    names, estimate, std = estimate.index, estimate.to_numpy(), std.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.isinf(std), np.nan, estimate / std)
    law = norm if dof is None else t(dof)
    half = law.ppf(0.5 + level / 2) * std
    tested = {"z": ratio} if dof is None else {"df": dof, "t": ratio}
    return Table(
        {
            "estimate": estimate,
            "std_error": std,
            **tested,
            "p": 2 * law.sf(np.abs(ratio)),
            "ci_lower": estimate - half,
            "ci_upper": estimate + half,
        },
        index=names.rename("coefficient"),
    )


def variance_components_table(labels, result):
    """Table of group, name, variance, sd, corr and std_error, one row an SD or correlation."""
    values, errors, rows = result.natural, result.variance_se, []
    entries = natural_entries(labels.blocks)
    for (term, kind, name), value, error in zip(entries, values, errors, strict=False):
        sd, corr = (value, np.nan) if kind == "sd" else (np.nan, value)
        rows.append((term, name, sd**2, sd, corr, error))
    if "sigma" in result.family:
        at = len(rows) + list(result.family).index("sigma")
        rows.append(("Residual", "", values[at] ** 2, values[at], np.nan, errors[at]))
    return Table(rows, columns=["group", "name", "variance", "sd", "corr", "std_error"])


def history_table(labels, history):
    """Table of loss, step, seconds and every reported parameter, one row an iteration."""
    columns = ["loss", "loglik", "acceptance_rate", "step", "seconds"]
    rows = [
        [*(record[c] for c in columns), *labels.estimates(record["coef"], record["natural"])]
        for record in history
    ]
    index = pd.RangeIndex(1, len(rows) + 1, name="iteration")
    return pd.DataFrame(rows, columns=[*columns, *labels.names], index=index)


def wald_intervals(labels, result, level):
    """Wald intervals of the coefficients and of SDs, correlations and family parameters.

    They are cut at the bounds of SDs and family parameters; those of correlations are of Fisher's
    z, atanh.
    """
    estimate, std, n = reported(labels, result)
    quantile = np.full(len(std), norm.ppf(0.5 + level / 2))
    if result.dof is not None:
        quantile[: len(result.dof)] = t(result.dof).ppf(0.5 + level / 2)
    half, value = (quantile * std).to_numpy(), estimate.to_numpy()
    lower, upper = value - half, value + half
    least, most = (bound[labels.n_fixed :] for bound in labels.bounds)
    lower[n:], upper[n:] = np.maximum(lower[n:], least), np.minimum(upper[n:], most)
    kinds = [kind for _, kind, _ in natural_entries(labels.blocks)]
    corr = np.flatnonzero(np.array(kinds) == "corr")
    least, most, corr = least[corr], most[corr], n + corr
    r = value[corr]
    with np.errstate(divide="ignore", invalid="ignore"):
        z, width = np.arctanh(r), half[corr] / (1 - r**2)
        lower[corr] = np.maximum(np.tanh(z - width), least)
        upper[corr] = np.minimum(np.tanh(z + width), most)
    return interval_table(estimate.index, lower, upper)


def interval_table(names, lower, upper):
    """DataFrame with the columns lower and upper, one row a parameter."""
    return pd.DataFrame({"lower": lower, "upper": upper}, index=pd.Index(names, name="parameter"))


def without_likelihood(result):
    """Why a result has no log-likelihood, and what has one."""
    if len(result.sparse_coef):
        return "cg has none beside sparse columns; fit with fewer columns, as dense ones"
    if result.chains is not None:
        return (
            "the Gaussian approximation that hmc's and nuts' is reckoned from has no curvature, or "
            "leaves the means that the link allows; fit with another link"
        )
    return "its determinant would be too large here; compare predictions, by cross-validation"


def information_criteria(result):
    """(AIC, BIC), from the REML criterion under REML as lme4 does; nan without a log-likelihood."""
    if result.loglik is None:
        return np.nan, np.nan
    k = result.n_parameters
    return -2 * result.loglik + 2 * k, -2 * result.loglik + k * np.log(result.n_obs)
