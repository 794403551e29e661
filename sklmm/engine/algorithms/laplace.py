r"""The Laplace approximation: the posterior of x is taken as N(m, C^-1) about its mode.

    l(theta) = log p(y, m; theta) - log |C| / 2,    C = Z^T W(eta_hat) Z + I.

The gradient has the term of the motion of W with the mode (as lme4's and TMB's). It is exact, and
so is log |C|, of tables whose terms beside the largest have few effects
(`engine.latent.approximation`). Of larger ones log |C| enters through draws of N(0, C^-1) with a
noise fixed for the fit, so that the steps converge; what they leave of error is reported.

The information is what the mixed-model equations know of it, REML's average information with the
rows' own curvature in a family's parameters, and what they lack, which steps teach: the score's
fall along a step (a structured quasi-Newton method, as of least squares: Dennis, Gay & Welsch 1981,
ACM Trans. Math. Softw. 7, 348-368). At the maximum it is measured, by differences of the gradient.
"""

from typing import NamedTuple

import numpy as np

from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.start import LARGE, start_theta
from sklmm.engine.latent.approximation import Approximation, WithoutEffects
from sklmm.engine.linalg.newton import (
    FLAT,
    inverse,
    look,
    unknown_ways,
    updated,
    updated_radius,
)
from sklmm.engine.posterior.gaussian import posterior_from_draws, with_coefficients
from sklmm.engine.theta.chart import Chart, scales

N_PROBES = 32
#: A step is taken if it makes this share of the rise it promised; and where that share is further
#: than TRUSTED from 1, the information is computed afresh: otherwise it is updated.
LEAST_RATIO = 1e-3
TRUSTED = 0.5
#: Share of the last decrement that is too much of it, and the information's fault.
SLOW = 0.3
PATIENCE = 2
#: Standard errors from where it was measured within which an information still counts as measured.
NEARBY = 0.01
#: Length of the differences of the gradient, which are of one side.
STEP = 1e-6
#: Radius at which no step raises the likelihood.
STUCK = 1e-3
#: Change of a gradient from where a likelihood is of no form that could be learnt.
BEYOND = 1e100
#: Share of the log-likelihood that its rounding, and the mode's, may be.
RESOLVED = 1e-11
#: Of steps shorter than SMALL standard errors, the share of the last one that is no progress; and
#: how many such in a row show a maximum at infinity where the family has parameters.
SMALL = 0.1
CREEP = 0.5
LONGEST_RIDGE = 4


class Point(NamedTuple):
    """theta, flat [m], and what was seen there: see `Approximation`.

    shift [P, m] is how the mode moves, information the two parts [m, m] of what the equations alone
    know of less the second derivatives.
    """

    flat: np.ndarray
    joint: float
    score: np.ndarray
    loglik: float | None
    replicates: object
    mode: np.ndarray
    shift: np.ndarray
    information: tuple


class Seen(NamedTuple):
    """What `algorithms.profile` asks of a theta: its log-likelihood and the gradient [m] of it."""

    loglik: float
    gradient: np.ndarray
    beta: np.ndarray


class Laplace:
    """Ascent of the Laplace approximation by a trust region."""

    stochastic = False

    def __init__(self, latent, tol, seed, n_draws=64, start=None, n_probes=N_PROBES):
        self.latent, self.n_draws = latent, n_draws
        self.space = latent.space
        self.tol = tol
        self.seed = seed
        self.start = start
        #: Without latent variables the information is exact, and Newton's method quadratic.
        self.plain = not latent.layout.size
        #: (seed, number) of the draws that stand for C^-1, or None where it is exact.
        self.probes = None if self.plain or latent.approximated else (seed, n_probes)
        #: Where a fit that stops here ends.
        self.theta = None

    def steps(self):
        """Yield `Iteration`s, one an evaluation; a step that lowers the likelihood is undone."""
        theta, self.mode = start_theta(self.latent) if self.start is None else self.start
        here = self._begin(theta)
        # What the equations do not know of the information, and how far from here it was measured.
        m = self.space.size
        lacking, away, radius, decrement = np.zeros((m, m)), np.inf, 1.0, np.inf
        poor = crept = 0
        # Along a bent ridge of a family's parameters steps may shrink as slowly for a while.
        most = LONGEST_RIDGE if self.latent.like.names else 1
        while True:
            last, (chart, ahead) = decrement, self._look(here, lacking, radius)
            decrement = ahead.decrement
            # Newton's method only creeps where the maximum is at infinity: separated data.
            crept = crept + 1 if self.plain and CREEP * last < decrement < SMALL else 0
            creeping = crept >= most
            if ((decrement < self.tol or creeping) and away > NEARBY) or poor > PATIENCE:
                # What was learnt on the way is no proof of a maximum.
                lacking, away, poor = self._measured(here), 0.0, 0
                chart, ahead = self._look(here, lacking, radius)
                decrement = ahead.decrement
            # A custom density may have kinks, where the gradient promises what no step keeps.
            kink = radius < STUCK and self.latent.like.distribution is not None
            done = decrement < self.tol or creeping or kink
            following = self.space.settled(chart.back(chart.t + ahead.step))
            yield self._step(here, following, decrement, done, told(here, chart, lacking))
            new = self._trial(following, here)
            ratio = rise(here, new, chart, ahead) / ahead.rise
            radius = updated_radius(radius, ahead, ratio)
            accepted = ratio > LEAST_RATIO
            # Where all is known, a step that failed was too far to tell more.
            if accepted or not self.plain:
                lacking = learnt(lacking, here, new, chart, ahead.step, accepted)
            poor += not TRUSTED < ratio < 2 - TRUSTED or SLOW * last < decrement < np.inf
            away += ahead.length
            here = new if accepted else here

    def _begin(self, theta):
        """The `Point` of theta, whose weights give the charts their scales."""
        seen = self.approximation(theta)
        self.sizes = scales(seen.equations.G if self.latent.full.blocks else ())
        # Coefficients of a mean of thousands are as large.
        size = float(np.linalg.norm(theta.beta))
        self.unit = size if self.plain and size > LARGE else 1.0
        return self._seen(self.space.join(theta), seen)

    def _look(self, here, lacking, radius):
        """The chart about a point, and `Ahead` in its t."""
        chart = self._chart(here)
        slope = chart.slope(chart.t)
        score = here.score * slope
        information = known(here, chart, chart.t) + lacking * np.outer(slope, slope)
        # A likelihood without effects is concave, or nearly, and its maximum may be far.
        flat = 0.0 if self.plain else FLAT
        return chart, look(information, score, chart.limits, radius, flat)

    def _chart(self, here):
        return Chart(self.space, self.sizes, here.flat, here.score, self.unit)

    def _point(self, flat, mode=None):
        return self._seen(flat, self.approximation(self.space.split(flat), mode))

    def _seen(self, flat, seen):
        self.mode = seen.mode
        point = Point(
            flat,
            seen.joint,
            seen.score,
            seen.loglik,
            None if self.probes is None else seen.replicates,
            seen.mode,
            seen.shift(),
            seen.information(),
        )
        if (prior := self.space.log_prior(seen.theta)) is None:
            return point
        average, bend = point.information
        return point._replace(
            score=point.score + prior.gradient,
            loglik=None if point.loglik is None else point.loglik + prior.value,
            information=(average + prior.curvature, bend),
        )

    def _score(self, theta, mode):
        """The gradient [m] at theta, from a mode that is nearly its own."""
        score, prior = self.approximation(theta, mode).score, self.space.log_prior(theta)
        return score if prior is None else score + prior.gradient

    def look(self, theta):
        """`Seen` at theta."""
        return self.evaluation(theta)

    def equations(self, theta):
        """None: there are none that a profile would ask for."""

    def evaluation(self, theta, equations=None, inform=False):
        """The same, as `algorithms.profile` asks of any algorithm; LinAlgError where there is none.

        That is so far from the maximum, where numbers overflow.
        """
        mode = self.mode
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                seen = self.approximation(theta)
                self.mode = seen.mode
                out = Seen(seen.loglik, seen.score, theta.beta)
            if np.isfinite(out.loglik) and np.isfinite(out.gradient).all():
                return out
        except (np.linalg.LinAlgError, ValueError):
            # SciPy's solvers refuse what has overflowed by the latter.
            pass
        self.mode = mode
        raise np.linalg.LinAlgError("the likelihood is not finite here")

    def information(self, theta):
        """The observed information [m, m] of theta."""
        here = self._begin(theta)
        return told(here, self._chart(here), self._measured(here))

    def _trial(self, flat, here):
        """A `_point` that need not exist: where C is singular its log-likelihood is -inf."""
        mode = self.mode
        try:
            starts = here.mode + here.shift @ (flat - here.flat), here.mode
            return self._point(flat, self.latent.top(self.space.split(flat), *starts))
        except np.linalg.LinAlgError:
            self.mode, nothing = mode, np.full(len(flat), np.nan)
            return Point(flat, -np.inf, nothing, -np.inf, None, mode, None, None)

    def _step(self, here, following, decrement, done, information):
        """The `Iteration` of a point, and of the step from it to `following`."""
        theta, self.theta = self.space.split(here.flat), self.space.split(following)
        covariance = inverse(information)
        spread = None
        if done and self.probes is not None:
            replicates = here.replicates()
            spread = covariance @ np.atleast_2d(np.cov(replicates)) @ covariance
            spread /= replicates.shape[1]
        return Iteration(
            theta=self._shown(theta),
            loss=joint_loss(self.latent.full, theta.factors, -here.joint),
            loglik=np.nan if here.loglik is None else here.loglik + self.latent.log_constant,
            decrement=decrement,
            done=done,
            # Newton's last step is worth taking: its information is exact.
            estimate=self._shown(self.theta),
            covariance=self.space.with_beta(covariance),
            spread=None if spread is None else self.space.with_beta(spread),
            flat=self.space.beside_beta(unknown_ways(information)) if done else None,
        )

    def approximation(self, theta, mode=None):
        """`WithoutEffects` or `Approximation` at theta; its mode may be known."""
        if self.plain:
            return WithoutEffects(self.latent, theta)
        mode = self.latent.top(theta, self.mode) if mode is None else mode
        return Approximation(self.latent, theta, mode, self.probes)

    def _measured(self, here):
        """What the equations' information lacks [m, m], by the gradient's differences in t."""
        if self.plain:
            return np.zeros_like(here.information[0])
        chart = self._chart(here)
        slope = chart.slope(chart.t)
        score, shift = here.score * slope, here.shift * slope
        columns = []
        for change in STEP * np.eye(self.space.size):
            t = chart.t + change
            # The mode is where its motion leads.
            theta = self.space.split(chart.back(t))
            there = self._score(theta, here.mode + shift @ change)
            columns.append((score - there * chart.slope(t)) / STEP)
        found = np.reshape(columns, (self.space.size,) * 2)
        lacking = (found + found.T) / 2 - known(here, chart, chart.t)
        return lacking / np.outer(slope, slope)

    def _shown(self, theta):
        if not self.latent.full.reml:
            return theta
        return theta._replace(beta=self.mode[: self.latent.problem.p])

    def posterior(self, last):
        """The Gaussian posterior at the estimate, by draws."""
        latent, estimate = self.latent, last.estimate
        seen = self.approximation(estimate._replace(beta=estimate.beta[: self.space.p]))
        equations = seen.equations
        rng = np.random.default_rng([self.seed, 1])
        posterior = posterior_from_draws(equations, seen.mode, equations.draws(rng, self.n_draws))
        loglik, error = seen.loglik, 0.0
        if loglik is None and (log_det := equations.log_det()) is not None:
            loglik = seen.joint - 0.5 * log_det
        if loglik is not None:
            # Without the prior the coefficients need not have an integral.
            loglik, error = loglik + latent.log_constant, 0.5 * equations.log_det_error
            loglik -= seen.log_prior
        posterior = posterior._replace(loglik=loglik, loglik_error=error, log_prior=seen.log_prior)
        if latent.problem.p:
            return posterior
        return with_coefficients(posterior, last, latent.layout, seen.shift(), rng)


def known(point, chart, t):
    """The equations' information in a chart's t, at a point."""
    slope, share = chart.slope(t), np.sqrt(chart.share(t))
    average, bend = (part * np.outer(slope, slope) for part in point.information)
    return average + (bend + chart.bend(t, point.score * slope)) * np.outer(share, share)


def told(point, chart, lacking):
    """The information [m, m] in theta itself at a point that a chart is about."""
    slope = chart.slope(chart.t)
    of_chart = known(point, chart, chart.t) - chart.bend(chart.t, point.score * slope)
    return of_chart / np.outer(slope, slope) + lacking


def learnt(lacking, here, new, chart, step, accepted):
    """What the equations' information lacks, from what the step in t between two points told.

    Along it the score fell by the mean of the information there.
    """
    if new.information is None:
        return lacking
    t, to = chart.t, chart.t + step
    before, after = chart.slope(t), chart.slope(to)
    fall = here.score * before - new.score * after
    fall -= (known(here, chart, t) + known(new, chart, to)) @ step / 2
    if not np.abs(fall).max() < BEYOND:
        return lacking
    lacking = updated(lacking * np.outer(before, before), step, fall)
    end = after if accepted else before
    return lacking / np.outer(end, end)


def rise(here, new, chart, ahead):
    """The log-likelihood's change, by its gradients where its own rounding hides it."""
    after = chart.t + ahead.step
    slopes = here.score * chart.slope(chart.t) + new.score * chart.slope(after)
    if here.loglik is None or ahead.rise < RESOLVED * abs(here.loglik):
        return 0.5 * slopes @ ahead.step
    return new.loglik - here.loglik
