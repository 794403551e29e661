r"""Maximum likelihood by adaptive Gauss-Hermite quadrature: exact, and without noise.

Newton's steps in a trust region climb the log-likelihood of `engine.latent.quadrature`. They begin
with few points. Where they have arrived its value is taken by twice as many points too: if the two
differ, the fit goes on with these, and if not it ends by a last step with their score. The
information is that of the sum at held points: known exactly of densities whose curvature is known,
and by differences of the score of others.
"""

from copy import copy
from functools import partial
from typing import NamedTuple

import numpy as np

from sklmm.engine.algorithms.laplace import LEAST_RATIO, SLOW, TRUSTED, Seen, rise
from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.start import start_theta
from sklmm.engine.latent.points import Points
from sklmm.engine.latent.quadrature import Integral
from sklmm.engine.limits import MOST_POINTS, QUADRATURE_POINTS, integrable
from sklmm.engine.linalg.blocks import rescaled
from sklmm.engine.linalg.newton import (
    STEP,
    inverse,
    look,
    unknown_ways,
    updated,
    updated_radius,
)
from sklmm.engine.posterior.assemble import Posterior
from sklmm.engine.posterior.gaussian import with_coefficients
from sklmm.engine.rows.nested import Nesting
from sklmm.engine.theta.chart import Chart, scales
from sklmm.result import own_sds

#: Points a dimension to begin with, of one dimension and of more; and the change of the
#: log-likelihood by twice as many that counts as none.
FIRST = (9, 3)
SETTLED = 1e-3
#: The same at which the fit begins; and rises of so many times it are told by the log-likelihoods.
ROUGH = 0.3
CLEAR = 10.0
#: Standard errors from the maximum by some points at which more are tried; and from where the
#: information was measured within which it still counts as measured.
CLOSE = 1e-2
NEAR = 0.03
#: Times that a step's remainder is to be shorter than the last step may be.
SAFELY = 30.0
#: In a chart's t, an SD near 0; and the shares, of it and of what counts as 0, that it moves by at
#: most where it rests.
LOW = 0.1
STILL = 0.1
ZERO = 1e-4


class Point(NamedTuple):
    """theta, flat [m], the log-likelihood, its score [m] and `Nodes` there; points a dimension."""

    flat: np.ndarray
    loglik: float
    score: np.ndarray
    nodes: object
    n_points: int


def partitions(problem, step):
    """The terms over each partition of the rows; ValueError where `step` is not for the model."""
    rows = problem.rows
    terms = [
        (refs, J, z.shape[1]) for refs, J, z in zip(rows.refs, rows.levels, rows.z, strict=True)
    ]
    if (nesting := Nesting.of(terms)) is None:
        raise ValueError(
            f"random_effects: e_step={step!r} is for one grouping factor, or factors nested in one "
            "another, and these are crossed: use 'auto', 'laplace' or 'hmc'."
        )
    if problem.reml:
        raise ValueError(
            f"method='reml': e_step={step!r} maximises the likelihood and does not integrate the "
            "coefficients out: use method='ml', or e_step 'laplace' or 'hmc'."
        )
    groups, effects, largest = nesting
    n_points = step.n_points or QUADRATURE_POINTS
    if not integrable(rows.n_rows, largest, effects, "doubled", n_points):
        raise ValueError(
            f"random_effects: e_step={step!r} has {n_points}^{sum(effects)} points for each of "
            f"{rows.n_rows} rows, which takes too long: use 'auto', 'laplace' or 'hmc', or fewer "
            "effects a level."
        )
    return groups


class Quadrature:
    """Ascent of the log-likelihood by a trust region; `n_points` None doubles them as needed."""

    stochastic = False

    def __init__(self, latent, groups, tol, seed, n_draws, start=None, n_points=None):
        self.latent, self.space, self.tol = latent, latent.space, tol
        self.integral = Integral(latent, groups)
        self.seed, self.n_draws, self.start = seed, n_draws, start
        #: A guess, which a step that does not keep its promise lets doubt.
        self.first = FIRST[self.integral.nested.width > 1]
        self.pinned, self.n_points = n_points is not None, n_points or self.first
        #: Points by which the log-likelihood is not yet, or no longer, another.
        self.enough = self.n_points
        #: What the points' number is known to matter for the log-likelihood.
        self.error, self.settled, self.shift = np.inf, self.pinned, None
        #: Where a fit that stops here ends, and the rise from the last point that is promised.
        self.theta, self.rise = None, 0.0

    def steps(self):
        """Yield `Iteration`s, one an evaluation; a step that lowers the likelihood is undone."""
        theta, _ = start_theta(self.latent) if self.start is None else self.start
        here = self._begun(self._point(self.space.join(theta)))
        self.sizes = scales(self.integral.level_curvatures(here.nodes))
        information, radius, decrement = self._information(here), 1.0, np.inf
        # How far, in standard errors, from where the information was measured.
        away = 0.0
        while True:
            last, (chart, ahead) = decrement, self._look(information, here, radius)
            while self._rests(ahead) or (away > NEAR and self._arrived(chart, ahead, away)):
                finer = None if self.settled else self._finer(here)
                self.settled |= finer is None or self.error < SETTLED
                if self.settled and away > NEAR:
                    # What was learnt on the way is no proof of a maximum.
                    information, away = self._information(here), 0.0
                if finer is not None:
                    here, away = self._taken(finer), away if self.settled else max(away, CLOSE)
                last, (chart, ahead) = np.inf, self._look(information, here, radius)
            decrement, done = ahead.decrement, self._arrived(chart, ahead, away)
            following = self.space.settled(chart.back(chart.t + ahead.step))
            if done and self.integral.curved:
                information = self._information(self._end(here, following))
            yield self._step(here, following, ahead, done, information)
            new = self._trial(following)
            ratio = self._rise(here, new, chart, ahead) / ahead.rise if ahead.rise > 0 else 1.0
            accepted, poor = ratio > LEAST_RATIO, not TRUSTED < ratio < 2 - TRUSTED
            before, here = here, new if accepted else here
            doubtful = ratio <= TRUSTED and self.n_points == self.first
            finer = self._finer(here) if doubtful else None
            taken = finer is not None and self.error > min(ahead.rise / CLEAR, ROUGH)
            if taken:
                # The promise was not kept for the points' sake.
                here = self._taken(finer)
            else:
                radius = updated_radius(radius, ahead, ratio)
            away += decrement if accepted or not self.integral.curved else 0.0
            slow = SLOW * last < decrement < np.inf
            if self.integral.curved:
                afresh = here is not before and (poor or slow or taken or away > NEAR)
            else:
                afresh = not taken and (poor or slow)
                information = learnt(information, before, new, chart, ahead, accepted)
            if afresh:
                information, away = self._information(here), 0.0

    def _rests(self, ahead):
        """Whether the points are to be proved, as the maximum by so many of them is near."""
        return not self.settled and ahead.decrement < max(self.tol, CLOSE)

    def _arrived(self, chart, ahead, away):
        """Whether the fit ends with this step: it is short, or what it leaves is far shorter.

        Newton's method leaves a share that is about as large as the information is `away`. An SD
        near 0 has to rest too, as the fit is to say whether it is 0: there the likelihood is flat,
        and a short step may be one of many.
        """
        if not self.settled or moving(chart, ahead):
            return False
        left = ahead.decrement
        if self.integral.curved and not self.pinned:
            left *= min(SAFELY * (away + left), 1.0)
        return left < self.tol

    def _end(self, here, flat):
        """A fit's last `Point`, of which the likelihood is not asked for."""
        nodes = self.integral.adapted(self.space.split(flat))
        return here._replace(flat=flat, nodes=nodes, n_points=0)

    def _begun(self, here):
        """A start's point, by points enough for steps that are far from the maximum."""
        while self.error > ROUGH and (finer := self._finer(here)) is not None:
            if self.error > ROUGH:
                here = self._taken(finer)
        return here

    def _finer(self, here):
        """The same theta by twice the points; None where they are not affordable, or not asked for.

        Then `error` is how much the log-likelihood moved.
        """
        more = 2 * here.n_points + 1
        if self.pinned or more > MOST_POINTS or not self.integral.affordable(more):
            return None
        finer = self._point(here.flat, here.nodes, more)
        self.error = abs(finer.loglik - here.loglik)
        return finer

    def _taken(self, finer):
        self.n_points = finer.n_points
        self.enough = self.enough if self.settled else finer.n_points
        return finer

    def _rise(self, here, new, chart, ahead):
        """The log-likelihood's change, by its scores where the points' own error hides it."""
        seen = None if ahead.rise < CLEAR * self.error else here.loglik
        return rise(here._replace(loglik=seen), new, chart, ahead)

    def _point(self, flat, nodes=None, n_points=None):
        theta, n_points = self.space.split(flat), n_points or self.n_points
        nodes = self.integral.adapted(theta) if nodes is None else nodes
        loglik, score, _ = self.integral.loglik(theta, nodes, n_points)
        if (prior := self.space.log_prior(theta)) is not None:
            loglik, score = loglik + prior.value, score + prior.gradient
        return Point(flat, loglik, score, nodes, n_points)

    def look(self, theta):
        """`Seen` at theta, by the points that the fit has taken."""
        return self.evaluation(theta)

    def equations(self, theta):
        """None: there are none that a profile would ask for."""

    def evaluation(self, theta, equations=None, inform=False):
        """The same, as `algorithms.profile` asks of any algorithm."""
        point = self._point(self.space.join(theta))
        return Seen(point.loglik, point.score, theta.beta)

    def information(self, theta):
        """The observed information [m, m] of theta."""
        return self._information(self._point(self.space.join(theta)))

    def _trial(self, flat):
        """A `_point` that need not exist: where a density is 0 its log-likelihood is -inf."""
        try:
            return self._point(flat)
        except np.linalg.LinAlgError:
            return Point(flat, -np.inf, np.full(len(flat), np.nan), None, 0)

    def _chart(self, here):
        return Chart(self.space, self.sizes, here.flat, here.score)

    def _look(self, information, here, radius):
        """The chart about a point, and `Ahead` in its t."""
        chart = self._chart(here)
        slope = chart.slope(chart.t)
        score = here.score * slope
        information = information * np.outer(slope, slope) + chart.bend(chart.t, score)
        return chart, look(information, score, chart.limits, radius)

    def _information(self, here):
        """Less the second derivatives [m, m]; and of settled points `shift`, which is kept."""
        information, self.shift = self._measured(here, self.settled)
        return information

    def _measured(self, here, moving):
        """Less the second derivatives [m, m] of the sum at held points.

        And, if `moving` is asked for, how the posterior means move with the coefficients, [P, p].
        """
        integral, known, motion = self.integral, np.zeros((0, 0)), None
        if integral.curved:
            theta = self.space.split(here.flat)
            known, motion = integral.information(theta, here.nodes, self.enough, moving)
            if (prior := self.space.log_prior(theta)) is not None:
                known = known + prior.curvature[: len(known), : len(known)]
        first = len(known)
        information, moved = self._differenced(here, first, moving and motion is None)
        information[:first, :first] = known
        motion = moved if motion is None else motion
        return information, None if motion is None else self._shift(motion)

    def _differenced(self, here, first, moving):
        """The columns from `first` on, and the motion, by differences of the score and the means.

        The motion [n, r, p] of each depth, or None if it is not asked for.
        """
        chart, integral, m = self._chart(here), self.integral, self.space.size
        asked = [Points.means] if moving else []

        def look(t):
            theta = self.space.split(chart.back(t))
            _, score, answers = integral.loglik(theta, here.nodes, self.enough, asked)
            if (prior := self.space.log_prior(theta)) is not None:
                score = score + prior.gradient
            return score * chart.slope(t), *answers

        score, means = here.score * chart.slope(chart.t), None
        if moving or (first < m and here.n_points != self.enough):
            score, *means = look(chart.t)
        away = [look(chart.t + e) for e in STEP * np.eye(m)[first:]]
        found = np.zeros((m, m))
        found[first:] = np.reshape([score - after for after, *_ in away], (m - first, m)) / STEP
        found[:, first:] += found[first:].T
        found[first:, first:] /= 2
        motion = None
        if moving:
            ends, motion = [after for _, after in away[: self.space.p]], []
            for k, before in enumerate(means[0]):
                after = np.reshape([end[k] for end in ends], (len(ends), *before.shape))
                motion.append(np.moveaxis(after - before, 0, 2) / STEP)
        return flattened(found, here, chart, chart.t), motion

    def _shift(self, motion):
        """Slopes [P, p] of the unknowns' means in the coefficients, from those of each depth's."""
        layout, p = self.latent.layout, self.space.p
        if not p:
            return np.zeros((layout.size, 0))
        zeros = [np.zeros((b.r, 1)) for b in self.latent.full.blocks]
        return layout.join(np.zeros((0, p)), self.integral.by_term(motion, zeros))

    def _step(self, here, following, ahead, done, information):
        """The `Iteration` of a point, and of the step `ahead` from it to `following`."""
        theta, self.theta = self.space.split(here.flat), self.space.split(following)
        self.rise = ahead.rise
        return Iteration(
            theta=theta,
            loss=joint_loss(self.latent.full, theta.factors, -here.nodes.joint),
            loglik=here.loglik + self.latent.log_constant,
            decrement=ahead.decrement,
            done=done,
            estimate=self.theta,
            covariance=inverse(information),
            spread=None,
            flat=unknown_ways(information) if done else None,
        )

    def posterior(self, last):
        """The posterior at the estimate: moments by the points, and draws of them for a root."""
        # Its modes are where the fit's next ones start.
        latent, integral, theta = self.latent, copy(self.integral), last.estimate
        nodes, rng = integral.adapted(theta), np.random.default_rng([self.seed, 1])
        shift = self.shift if last.done else None
        if shift is None:
            # Stopped before it was asked for.
            _, shift = self._measured(self._point(self.space.join(theta), nodes), True)
        draws = partial(Points.draws, n_draws=self.n_draws, seed=(self.seed, 2))
        asked = Points.means, Points.covariances, draws
        loglik, _, (means, spread, draws) = integral.loglik(theta, nodes, self.enough, asked)
        loglik += latent.log_constant
        if self.enough < self.n_points and last.done and last.decrement < CLOSE:
            # So short a step keeps its promise: more points would tell the same.
            loglik = last.loglik + self.rise
            if (prior := self.space.log_prior(theta)) is not None:
                loglik -= prior.value
        elif self.enough < self.n_points:
            loglik = integral.loglik(theta, nodes, self.n_points)[0] + latent.log_constant
        blocks, factors = latent.full.blocks, theta.factors
        # What is known of a level without rows is its prior.
        zeros, units = ([make(b.r) for b in blocks] for make in (np.zeros, np.eye))
        noise = [rng.standard_normal((b.n_levels, b.r, self.n_draws)) for b in blocks]
        means = integral.by_term(means, zeros)
        spread = integral.by_term(spread, units, square=True)
        draws = integral.by_term(draws, noise)
        covariances = [L @ V @ L.T for L, V in zip(factors, spread, strict=True)]
        stds, given = own_sds(covariances), []
        for L, draw, std in zip(factors, draws, stds, strict=True):
            away = np.einsum("ab,jbm->jam", L, draw - draw.mean(axis=2, keepdims=True))
            given.append(rescaled(away, std).reshape(-1, self.n_draws))
        posterior = Posterior(
            beta=np.zeros(0),
            effects=tuple(
                np.einsum("ab,jb->ja", L, m) for L, m in zip(factors, means, strict=True)
            ),
            effects_cov=tuple(covariances),
            beta_cov=None,
            root=np.concatenate(given),
            loglik=loglik,
            loglik_error=self.error if SETTLED <= self.error < np.inf else 0.0,
        )
        return with_coefficients(posterior, last, latent.layout, shift, rng)


def moving(chart, ahead):
    """Whether an SD near 0 is not yet where it will be."""
    t, step = chart.t[chart.sd], ahead.step[chart.sd]
    far = np.abs(step) > STILL * np.maximum(np.abs(t + step), ZERO)
    return bool(far[np.abs(t) <= LOW].any())


def flattened(information, point, chart, t):
    """The information in theta from that in a chart's t, at a point."""
    slope = chart.slope(t)
    return (information - chart.bend(t, point.score * slope)) / np.outer(slope, slope)


def learnt(information, here, new, chart, ahead, accepted):
    """The information at the new point, or at the old one, from what the step between them told."""
    before, after = chart.slope(chart.t), chart.slope(chart.t + ahead.step)
    scores = here.score * before, new.score * after
    if not np.isfinite(new.score).all():
        return information
    information = information * np.outer(before, before) + chart.bend(chart.t, scores[0])
    information = updated(information, ahead.step, scores[0] - scores[1])
    where, t = (new, chart.t + ahead.step) if accepted else (here, chart.t)
    return flattened(information, where, chart, t)
