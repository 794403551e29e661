"""The ordered beta family of shares with zeros and ones."""

# ruff: noqa: D102 - what each property of a density is, `Density` says once.

from functools import cached_property

import numpy as np
from scipy.special import betainc, expit

from sklmm.families.base import Family, Response, numeric
from sklmm.families.beta import BetaDensity, shapes
from sklmm.families.density import Density
from sklmm.families.links import Logit
from sklmm.families.special import log_one_less_exp


class OrderedBetaDensity(Density):
    """P(0) = 1 - F(a) and P(1) = F(b), a = eta - cut1 and b = a - cut_gap, F the logistic cdf.

    Between them P = F(a) (1 - F(b)) (1 - exp(-cut_gap)), times the beta density of mean F(eta).
    """

    def __init__(self, xp, y, eta, parameters, link):
        super().__init__(xp, y, eta, parameters, link)
        self._some, self._one = y > 0, y >= 1
        self._inside = (y > 0) & (y < 1)
        self._a, self._b = Logit(xp, eta - self.cut1), Logit(xp, eta - self.cut1 - self.cut_gap)
        self._beta = BetaDensity(xp, y, eta, {"precision": self.precision}, link)

    def _of(self, zero, between, one):
        """Entries by where y is: numbers, or arrays that broadcast to [n, C]."""
        where = self.xp.where
        return where(self._one, one, where(self._some, between, zero))

    def _within(self, part):
        return self.xp.where(self._inside, part, 0 * part)

    @property
    def value(self):
        a, b = self._a, self._b
        ordered = a.log_one + b.log_zero + log_one_less_exp(self.xp, -self.cut_gap)
        return self._of(a.log_zero, ordered + self._beta.value, b.log_one)

    @cached_property
    def _pull(self):
        """The derivative in eta of the probability's logarithm, without that of the beta's."""
        a, b = self._a, self._b
        return self._of(a.slope_zero, a.slope_one + b.slope_zero, b.slope_one)

    @cached_property
    def _bend(self):
        """Less the second one."""
        a, b = self._a, self._b
        return -self._of(a.bend_zero, a.bend_one + b.bend_zero, b.bend_one)

    score = cached_property(lambda d: d._pull + d._within(d._beta.score))
    observed = property(lambda d: d._bend + d._within(d._beta.observed))

    @property
    def expected(self):
        a, b = self._a, self._b
        some, not_one = -a.slope_zero, b.slope_one
        between = some * not_one * -self.xp.expm1(-self.cut_gap)
        return between * self._beta.expected - a.bend_one * not_one - b.bend_one * some

    @property
    def _gap_slope(self):
        """The derivative in the gap, which moves the upper cut."""
        b, beside = self._b, 1 / self.xp.expm1(self.cut_gap)
        return self._of(0 * b.eta, beside - b.slope_zero, -b.slope_one)

    @property
    def slopes(self):
        precision = self._within(self._beta.slopes["precision"])
        return {
            "precision": precision,
            "cut1": -self._pull,
            "cut_gap": self.cut_gap * self._gap_slope,
        }

    @property
    def second(self):
        in_eta, inner = self._beta.second
        xp, gap, bend = self.xp, self.cut_gap, self._bend
        upper = -gap * self._of(0 * bend, self._b.bend_zero, self._b.bend_one)
        beside = 1 / (xp.expm1(gap) * -xp.expm1(-gap))
        own = upper + gap * self._within(beside + 0 * bend) - self._gap_slope
        pairs = {
            ("precision", "precision"): self._within(inner["precision", "precision"]),
            ("precision", "cut1"): 0 * bend,
            ("precision", "cut_gap"): 0 * bend,
            ("cut1", "cut1"): bend,
            ("cut1", "cut_gap"): upper,
            ("cut_gap", "cut_gap"): gap * own,
        }
        precision = self._within(in_eta["precision"])
        return {"precision": precision, "cut1": -bend, "cut_gap": -upper}, pairs


class OrderedBeta(Family):
    """Shares from 0 to 1, both included: three ordered parts of one predictor.

    P(y = 0) = 1 - F(eta - cut1) and P(y = 1) = F(eta - cut2), F the logistic cdf; between them y ~
    Beta(mu precision, (1 - mu) precision), mu = F(eta). The parameters are the precision, cut1 and
    cut_gap = cut2 - cut1 > 0: glmmTMB's ``sigma()``, and its ``psi`` is (cut1, cut2). The mean,
    which is predicted, is that of all y. A cut is known only where there are zeros, or ones.

    Parameters
    ----------
    link : {"logit"}, default="logit"
    precision : float, optional
        Pins the precision instead of estimating it.

    References
    ----------
    Kubinec (2022), "Ordered beta regression: a parsimonious, well-fitting model for continuous data
    with lower and upper bounds", Political Analysis 31, 519-536.

    Examples
    --------
    >>> from sklmm.families import OrderedBeta
    >>> float(OrderedBeta().mean(0.0, {"precision": 4.0, "cut1": -1.0, "cut_gap": 2.0}))
    0.5
    """

    name = "ordered_beta"
    density = OrderedBetaDensity
    dispersion_parameter = "precision"
    scalars = ("precision",)
    links = ("logit",)
    support = (0.0, 1.0)

    def __init__(self, link="logit", precision=None):
        self.link = link
        self.precision = precision

    def parameters(self, n_classes=None):
        """The precision, cut1 and cut_gap."""
        return {**super().parameters(n_classes), "cut1": "real", "cut_gap": "positive"}

    def bind(self, y, weights=None):
        """The `Response` in y, numbers from 0 to 1."""
        y, weights = numeric(self, y, weights)
        remedy = "rescale it, by (y - low) / (high - low) for a scale from low to high."
        self._require(y, (y >= 0) & (y <= 1), "from 0 to 1", remedy)
        return Response(self, y, weights)

    def mean(self, eta, params):
        """P(1), and the beta's mean by the probability of what is between."""
        _, between, one, mu = self._shares(eta, params)
        return one + between * mu

    def variance(self, eta, params):
        """Of the three parts."""
        _, between, one, mu = self._shares(eta, params)
        square = one + between * mu * (mu * params["precision"] + 1) / (1 + params["precision"])
        return square - (one + between * mu) ** 2

    def sample(self, eta, params, rng):
        """Draws of y given eta."""
        zero, between, _, mu = self._shares(eta, params)
        u, draws = rng.random(np.shape(eta)), rng.beta(*shapes(mu, params["precision"]))
        return np.where(u < zero, 0.0, np.where(u < zero + between, draws, 1.0))

    def _cdf(self, y, eta, params):
        zero, between, _, mu = self._shares(eta, params)
        return zero + between * betainc(*shapes(mu, params["precision"]), y)

    def _shares(self, eta, params):
        """Probabilities of 0, of what is between and of 1, and the beta's mean."""
        a = np.asarray(eta, float) - params["cut1"]
        b, mu = a - params["cut_gap"], expit(eta)
        return expit(-a), expit(a) * expit(-b) * -np.expm1(-params["cut_gap"]), expit(b), mu
