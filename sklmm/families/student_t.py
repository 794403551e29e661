"""Student's t family, for outliers."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import stdtr

from sklmm.families.base import Family
from sklmm.families.density import Density
from sklmm.families.special import LOG_2PI, psi_less_log, stirling, trigamma_square_less


class StudentTDensity(Density):
    """(y - eta) / sigma ~ t(df), with h = df / 2 and w = z^2 / df."""

    convex_links = ("identity",)

    _h = cached_property(lambda d: d.df / 2)
    _z = cached_property(lambda d: (d.y - d.eta) / d.sigma)
    _w = cached_property(lambda d: d._z**2 * (1 / d.df))
    score = property(lambda d: (1 + 1 / d.df) / d.sigma * (d._z / (1 + d._w)))
    observed = property(lambda d: (1 + 1 / d.df) * (1 - d._w) / (1 + d._w) ** 2 / d.sigma**2)
    expected = property(lambda d: (d.df + 1) / ((d.df + 3) * d.sigma**2))

    @property
    def value(self):
        xp, h = self.xp, self._h
        norm = h * xp.log1p(0.5 / h) - 0.5 + stirling(xp, h + 0.5) - stirling(xp, h)
        return norm - 0.5 * LOG_2PI - xp.log(self.sigma) - (h + 0.5) * xp.log1p(self._w)

    @property
    def slopes(self):
        xp, h, w = self.xp, self._h, self._w
        norm = psi_less_log(xp, h + 0.5) - psi_less_log(xp, h) + xp.log1p(0.5 / h) - 0.5 / h
        return {
            "sigma": (self.df + 1) * w / (1 + w) - 1,
            "df": h * (norm - xp.log1p(w) + w * (1 + 0.5 / h) / (1 + w)),
        }

    @property
    def second(self):
        xp, h, w, square = self.xp, self._h, self._w, self._z**2
        share = 1 / (1 + w)
        part = w * share * share
        # h^2 times the derivative of psi(h + 1/2) - psi(h) - 1 / (2 h), by what trigamma
        # functions leave of their leading terms.
        ratio = h / (h + 0.5)
        rests = ratio**2 * trigamma_square_less(xp, h + 0.5) - trigamma_square_less(xp, h)
        norm = rests + 0.25 / (h + 0.5)
        of_df = -self.slopes["df"] - norm - part * (0.5 * square - 1 - 0.5 * w)
        in_eta = {
            "sigma": 2 * share * self.score,
            "df": (1 / self.df - w) * share * share * self._z / self.sigma,
        }
        return in_eta, {
            ("sigma", "sigma"): 2 * (self.df + 1) * part,
            ("sigma", "df"): (1 - square) * part,
            ("df", "df"): of_df,
        }


class StudentT(Family):
    """Student's t response with identity link, for outliers: (y - eta) / sigma ~ t(df).

    Var[y] = sigma^2 df / (df - 2), infinite for df <= 2. The mean is eta (for df <= 1, where there
    is none, the median).

    Parameters
    ----------
    df : float, optional
        Pins the degrees of freedom instead of estimating them.
    sigma : float, optional
        Pins the scale (in units of y) instead of estimating it.

    References
    ----------
    Lange, Little & Taylor (1989), "Robust statistical modeling using the t distribution",
    JASA 84, 881-896.

    Examples
    --------
    >>> from sklmm.families import StudentT
    >>> float(StudentT(df=4).variance(0.0, {"sigma": 1.0, "df": 4}))
    2.0
    """

    name = "student_t"
    density = StudentTDensity
    dispersion_parameter = "sigma"
    scalars = ("sigma", "df")
    scale_equivariant = True

    def __init__(self, df=None, sigma=None):
        self.df = df
        self.sigma = sigma

    def variance(self, eta, params):
        """sigma^2 df / (df - 2)."""
        df = params["df"]
        value = params["sigma"] ** 2 * df / (df - 2) if df > 2 else np.inf
        return np.broadcast_to(np.asarray(value, float), np.shape(eta))

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        return eta + params["sigma"] * rng.standard_t(params["df"], np.shape(eta))

    def _cdf(self, y, eta, params):
        return stdtr(params["df"], (y - eta) / params["sigma"])
