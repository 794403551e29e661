r"""R^2 and intraclass correlations of mixed models.

Of the variance of eta in the rows of the fit, and of the response's own,

    marginal R^2 = F / (F + R + D),      conditional R^2 = (F + R) / (F + R + D),

F the fixed part's, R = sum_k mean_i z_ik^T Sigma_k z_ik the random effects' (Johnson 2014, Methods
Ecol. Evol. 5, 944-946), D the distribution's on the scale of the link (Nakagawa, Johnson &
Schielzeth 2017, J. R. Soc. Interface 14, 20170213): sigma^2; pi^2 / 3, 1 and pi^2 / 6 for logit,
probit and cloglog; log(1 + v / mu^2) for a log link with variance v at the mean mu.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sklmm._fitted.latent import linear_predictor
from sklmm.design.indicators import quadratic
from sklmm.families.parts import parameters_by_row

#: Linear predictors beyond which the square of exp overflows.
MOST = 300.0


class Spread(NamedTuple):
    """Variances of eta over a fit's rows, and the mean response.

    fixed is the variance of the fixed part, random that of each term, mean the mean response of a
    log link. noise is the mean of the rows' residual variances, in units of sigma^2: 1 but for
    precisions; in y's units where sigma is another of each row.
    """

    fixed: float
    random: tuple
    mean: float
    noise: float

    @classmethod
    def of(cls, design, response, result):
        """The `Spread` of a fit; None for several predictors a row, but for that of a sigma."""
        d, predicted = response.n_predictors, getattr(response.family, "names", ())
        if d > 1 and "sigma" not in predicted:
            return None
        weights, noise = response.weights, 1.0
        if response.family.weights == "precision":
            noise = float(np.mean(1 / weights)) / response.sigma_unit**2
            weights = np.ones(len(weights))
        total = weights.sum()
        if response.models and response.family.scale_equivariant:
            params = parameters_by_row(response.models, result.family, design.models)
            if np.ndim(params["sigma"]):
                noise = float(weights @ params["sigma"][:, 0] ** 2 / total)
        if d > 1:
            # At the effects' means.
            log_sd = linear_predictor(design, result, d=d)[:, 1 + predicted.index("sigma")]
            noise = float(weights @ np.exp(2 * log_sd) / total)
        fixed = linear_predictor(design, result, [False] * len(design.every_block), d)
        if d > 1:
            fixed = fixed[:, 0].copy()
        log = getattr(response.family, "link", None) == "log"
        eta = fixed.copy() if log else None
        if design.offset is not None:
            fixed -= design.offset
        random = []
        # Terms of other parts come after the mean's.
        for block, cov in zip(design.blocks, result.covariances, strict=False):
            if block.z is None and block.relation is None:
                part = cov[0, 0]
                random.append(part)
            else:
                part = block.own * quadratic(block.loadings(slice(None)), cov, block.refs)
                random.append(weights @ part / total)
            if log:
                eta += part / 2
        mean = float(weights @ np.exp(np.minimum(eta, MOST)) / total) if log else np.nan
        # In place: a table may have 10^8 rows.
        fixed -= weights @ fixed / total
        np.square(fixed, out=fixed)
        variance = weights @ fixed / max(total - 1, 1)
        return cls(float(variance), tuple(random), mean, noise)

    @classmethod
    def of_moments(cls, moments, noise, result):
        """That of a Gaussian fit from its rows' second moments, as `engine.fit.moments` has them.

        `noise` is the mean residual variance.
        """
        n, cross, loadings = moments
        fixed = float(result.coef @ cross @ result.coef) / max(n - 1, 1)
        pairs = zip(loadings, result.covariances, strict=True)
        return cls(fixed, tuple(np.sum(S * cov) for S, cov in pairs), np.nan, noise)


def distribution_variance(family, result, spread):
    """D, the variance of the response's distribution on the scale of the link."""
    link = getattr(family, "link", "identity")
    # Where sigma is another of each row, the noise has its mean square.
    unit = {"sigma": 1.0} if family.scale_equivariant else {}
    known = unit | result.family
    own = [*family.parameters(0), *getattr(family, "names", ())]
    if lacking := [name for name in own if name not in known]:
        raise ValueError(
            f"family={family.name!r} has no variance on the scale of the link, as its "
            f"{lacking[0]!r} has a model of its own: use score(X, y), the R^2 of predictions."
        )
    if "sigma" in getattr(family, "names", ()):
        family = family.family
    latent = family.latent_variance(known)
    if latent is not None:
        return latent * spread.noise
    if spread is not None and link == "log" and spread.mean > 0:
        eta = np.log(np.full(1, spread.mean))
        # Of truncated counts eta is the log mean of counts that were not.
        if not np.allclose(family.mean(eta, result.family), spread.mean):
            raise ValueError(
                f"family={family.name!r} has no variance on the scale of the link, as its mean is "
                "not exp(eta): use score(X, y), the R^2 of predictions."
            )
        return float(np.log1p(family.variance(eta, result.family)[0] / spread.mean**2))
    raise ValueError(
        f"family={family.name!r} with link={link!r} has no variance on the scale of the link: use "
        "score(X, y), the R^2 of predictions."
    )


def r_squared(family, result, spread):
    """Series of the marginal and the conditional R^2."""
    if hasattr(family, "shifts"):
        raise ValueError(
            "nominal: columns that move each cutpoint by itself have no one variance on the scale "
            "of the link: use nominal=None for r2, or score(X, y)."
        )
    D, R = distribution_variance(family, result, spread), sum(spread.random)
    total = spread.fixed + R + D
    return pd.Series({"marginal": spread.fixed / total, "conditional": (spread.fixed + R) / total})


def intraclass_correlations(family, result, spread, terms):
    """Series of each term's share of R + D."""
    D = distribution_variance(family, result, spread)
    shares = np.array(spread.random) / (sum(spread.random) + D)
    return pd.Series(shares, pd.Index(terms, name="group"), dtype=float)
