"""What may be wrong with a fitted model: findings, each a number, a verdict and what to do.

As R's package performance has them (Luedecke et al. 2021, J. Open Source Softw. 6(60), 3139):
Pearson's chi-square over its degrees of freedom and variance inflation of the terms of the fixed
part; and tests of quantile residuals, as DHARMa's. Of large tables a deviation may be beyond doubt
and too small to matter: what is "ok" is either not significant at 5 % or below a size that is told
here.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from sklmm._fitted import residuals as quantile
from sklmm.design.terms import INTERCEPT
from sklmm.result import Status, count, least_eigenvalue, natural_entries, natural_names

OK, DOUBTFUL, PROBLEM = "ok", "doubtful", "problem"
#: p values below which a deviation may be one, and is one.
ALPHA, CLEAR = 0.05, 0.001
#: Logarithms of ratios, and distances from the uniform distribution, up to which they are of little
#: matter, and beyond which they are of much.
RATIO = np.log(1.05), np.log(1.5)
DISTANCE = 0.02, 0.06
#: Share of the rows that are many for outliers.
MANY = 1e-3
#: Variance inflation factors from which on they are moderate, and high.
MODERATE, HIGH = 5.0, 10.0
#: What to do about zeros, without and with a zero_inflation.
_MORE_ZEROS = (
    "Model them by zero_inflation, or use a family with a dispersion",
    "Give zero_inflation columns, or use a family with a dispersion",
)
_FEWER_ZEROS = (
    "Use a family with less dispersion, or a truncated one where there can be none",
    "Leave out zero_inflation, or use a family with less dispersion",
)
#: Names of terms that a sentence lists.
MOST_NAMES = 5


class Finding(NamedTuple):
    """One check: `value` is its number, `statistic` and `p` those of its test, nan without one."""

    check: str
    value: float
    statistic: float
    p: float
    verdict: str
    meaning: str


def _verdict(p, size, sizes):
    """Of a deviation of some size, by its p value."""
    if p >= ALPHA or size <= sizes[0]:
        return OK
    return PROBLEM if p < CLEAR and size > sizes[1] else DOUBTFUL


def convergence(result):
    """Whether the fit ended at its estimate: value is the last step, in standard errors."""
    step = result.history[-1]["step"] if result.history else np.nan
    verdict = OK if result.status.converged else PROBLEM
    remedy = {
        Status.MAX_ITER: "raise max_iter, or go on from here with warm_start=True",
        Status.STOPPED: "go on from here with warm_start=True",
        Status.SEPARATED: "do not trust infinite coefficients; coef_prior= makes them finite",
        Status.PERFECT: "look for a column that is the response itself",
    }.get(result.status, "the estimates can be used")
    # What a singular fit says is told by a check of its own.
    told = Status.CONVERGED if result.status is Status.SINGULAR else result.status
    return Finding("convergence", step, np.nan, np.nan, verdict, f"{told.value}: {remedy}.")


def singularity(labels, result):
    """Whether a variance is 0 or a correlation 1: value is the least eigenvalue of correlations."""
    if result.status is not Status.SINGULAR:
        least = min(map(least_eigenvalue, result.covariances))
        meaning = "every term has variances above 0 and correlations within (-1, 1)."
        return Finding("singular fit", least, np.nan, np.nan, OK, meaning)
    pairs = zip(natural_entries(labels.blocks), result.variance_se, strict=False)
    # At an end of its range an estimate has no standard error.
    found = dict.fromkeys(term for (term, _, _), error in pairs if np.isnan(error))
    meaning = (
        f"the data do not support all random effects of {_listed(list(found))}: a variance is 0, "
        "or a correlation +-1. Predictions stand; leave out a slope or its correlation (||), or "
        "use sd_prior."
    )
    return Finding("singular fit", 0.0, np.nan, np.nan, DOUBTFUL, meaning)


def collinearity(model, result):
    """A finding for each part of the model that has two terms or more: value is the largest VIF."""
    labels, out = model.labels, []
    names = [*labels.coef, *natural_names(labels.blocks, labels.family)]
    p = len(model.spec.coef_names)
    # Of several classes each has all the columns.
    parts = [
        ("collinearity", model.spec, [range(c * p, (c + 1) * p) for c in range(model.n_means)])
    ]
    for part, own in model.spec.models:
        if part != "nominal":
            places = [names.index(name) for name in model.part_names(part)]
            parts.append((f"collinearity ({part})", own, [places]))
    for check, spec, predictors in parts:
        found = {}
        for places in predictors:
            cov = result.natural_cov[np.ix_(places, places)]
            for term, vif in inflation(spec, cov).items():
                found[term] = max(vif, found.get(term, 0.0))
        if found:
            out.append(_collinear(check, found))
    return out


def inflation(spec, cov):
    """Variance inflation factor by term, from the covariance of a part's coefficients.

    Of a term with several columns it is the generalized one (Fox & Monette 1992, J. Am. Stat.
    Assoc. 87, 178-183), det R_tt det R_oo / det R, R the correlations, o the other terms; there is
    none where the part has one term.
    """
    names, variance = spec.coef_names, np.diag(cov)
    some = np.array([name != INTERCEPT for name in names], bool)
    # Columns that depend on others have been left out.
    some &= np.isfinite(variance) & (variance > 0)
    places = np.flatnonzero(some)
    every = _terms(spec)
    terms = [every[i] for i in places]
    if len(set(terms)) < 2:
        return {}
    sd = np.sqrt(variance[places])
    R = cov[np.ix_(places, places)] / np.outer(sd, sd)
    # What is singular but for rounding has a factor without end, and not the pseudo-inverse's.
    values, vectors = np.linalg.eigh(R)
    inverse, out = vectors / np.maximum(values, np.finfo(float).eps) @ vectors.T, {}
    for term in dict.fromkeys(terms):
        own = np.flatnonzero([t == term for t in terms])
        # det R_oo / det R is the determinant of the inverse's block, by Jacobi.
        block = np.ix_(own, own)
        out[term] = float(np.linalg.det(R[block]) * np.linalg.det(inverse[block]))
    return out


def _terms(spec):
    """Of each of a part's columns the name of its term, which of no formula is its own."""
    if spec.formula is None:
        return spec.coef_names
    return [term.name for term in spec.formula.formula_terms for _ in range(term.size)]


def _collinear(check, found):
    worst = max(found.values())
    high = [f"{t} ({v:.3g})" for t, v in sorted(found.items(), key=_inflated) if v >= MODERATE]
    if not high:
        meaning = (
            f"no term's variance is more than {worst:.3g} times what it would be without the "
            "other terms."
        )
        return Finding(check, worst, np.nan, np.nan, OK, meaning)
    verdict = PROBLEM if worst >= HIGH else DOUBTFUL
    meaning = (
        f"variances of coefficients are inflated by other terms: {_listed(high, 'more')}. Their "
        "standard errors are large and their signs uncertain, predictions are not concerned: "
        "centre columns that have powers or interactions, or leave out terms that say the same."
    )
    return Finding(check, worst, np.nan, np.nan, verdict, meaning)


def _inflated(pair):
    return -pair[1]


def is_counted(response, params):
    """Whether y counts, and more than to 1: of 0 and 1 the mean says all."""
    family = response.family
    if family.classes is not None or family.steps(params) is None:
        return False
    if not np.isfinite(family.support[1]):
        return True
    trials = response.weights if family.weights == "trials" else params["trials"]
    return bool(np.max(trials) > 1)


def overdispersion(response, eta, params, result):
    """Pearson's chi-square of counts over its degrees of freedom, those of `performance`.

    eta [n] or [n, d] are the rows' predictors at the effects' means.
    """
    mean, variance = (
        moment(eta[..., None], params)[:, 0]
        for moment in (response.family.mean, response.family.variance)
    )
    statistic = float(response.weights @ ((response.y - mean) ** 2 / variance))
    df = result.n_obs - result.n_parameters
    if not df > 0:
        return []
    ratio, p = statistic / df, float(chi2.sf(statistic, df))
    verdict = _verdict(p, max(np.log(ratio), 0.0), RATIO)
    meaning = f"squared residuals are {ratio:.3g} times what the model expects"
    if ratio < 1:
        meaning += "; below 1 is usual, as the effects follow their rows."
    elif verdict == OK:
        meaning += ", which may be chance." if p >= ALPHA else ", which is too little to matter."
    else:
        trials = np.isfinite(response.family.support[1])
        meaning += (
            ": standard errors are too small. Use a family with a dispersion "
            f"({'beta_binomial' if trials else 'negative_binomial'}), or a random effect for each "
            "row."
        )
    return [Finding("overdispersion", ratio, statistic, p, verdict, meaning)]


def residuals(found, response, inflated):
    """What `QuantileResiduals` tell: are they uniform, how they spread, outliers and zeros.

    `inflated` is whether the model has a zero_inflation.
    """
    out = [_uniformity(found.u), _dispersion(found.u), _outliers(found.u)]
    test = quantile.zeros(found, response.y)
    # Shares of 0 are as likely as the trials make them, and where none is seen none may be likely.
    told = test is not None and (test.statistic > 0 or test.p < ALPHA)
    if told and np.isinf(response.family.support[1]):
        out.append(_zeros(test, inflated))
    return out


def _uniformity(u):
    distance, _, p = quantile.uniformity(u)
    verdict = _verdict(p, distance, DISTANCE)
    meaning = f"quantile residuals are within {distance:.2g} of uniform ones."
    if verdict != OK:
        meaning = (
            f"quantile residuals are up to {distance:.2g} off the uniform distribution: the "
            "response is distributed in another way than the model says. Draw them, by "
            "QuantileResidualsDisplay; try another family or link, or columns that are missing."
        )
    return Finding("uniformity of residuals", distance, distance, p, verdict, meaning)


def _dispersion(u):
    ratio, _, p = quantile.dispersion(u)
    verdict = _verdict(p, abs(np.log(ratio)), RATIO)
    meaning = f"residuals vary {ratio:.3g} times as much as the model expects"
    if verdict != OK:
        meaning += (
            ": standard errors are too small. Use a family with a dispersion or heavier tails, or "
            "a random effect for each row"
            if ratio > 1
            else ": standard errors are too large. Use a family with less dispersion, or fewer "
            "random effects"
        )
    return Finding("dispersion of residuals", ratio, ratio * len(u), p, verdict, f"{meaning}.")


def _outliers(u):
    """Residuals so near to 0 or 1 that among all rows not one was to be expected."""
    tail = 2 * np.minimum(u, 1 - u)
    n, p = int(np.sum(tail < ALPHA / len(u))), -float(np.expm1(len(u) * np.log1p(-tail.min())))
    if not n:
        meaning = "no row is further off than the largest of so many would be."
        return Finding("outliers", n, np.nan, p, OK, meaning)
    meaning = (
        f"{n} row{'s are' if n > 1 else ' is'} further off than the largest of so many would be: "
        "look at them, whose quantile_residuals are nearest to 0 or 1. Families with heavier tails "
        "let them count for less: student_t, or of counts those with a dispersion."
    )
    verdict = PROBLEM if p < CLEAR and n > max(MANY * len(u), 1) else DOUBTFUL
    return Finding("outliers", n, np.nan, p, verdict, meaning)


def _zeros(test, inflated):
    """Zeros beside those that the model expects: value is expected over observed, as in R."""
    seen, expected, p = test
    ratio = expected / seen if seen else np.inf
    verdict = _verdict(p, abs(np.log(ratio)), RATIO)
    meaning = f"{count(seen)} zeros, where the model expects {expected:.0f}."
    if verdict != OK:
        meaning += f" {_MORE_ZEROS[inflated] if ratio < 1 else _FEWER_ZEROS[inflated]}."
    return Finding("zeros", ratio, seen, p, verdict, meaning)


def _listed(names, others="others"):
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} {others}" if more > 0 else "")
