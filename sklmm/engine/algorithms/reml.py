r"""REML and ML of Gaussian models: Newton's method on the likelihood of theta.

Each iteration looks at one theta = (theta_k, log sigma). The observed information is the average
information less the curvature of Sigma = L L^T in theta_k, which alone survives where a variance is
0 (there the gradient in L vanishes but G_k is negative): a singular fit is a regular maximum in L,
reached quadratically. A step that lowers the log-likelihood is taken back and damped. The first
steps, if they are long, are EM's, which never leave the space. Of the rows nothing is read but
their cross-products, which are made once.

The start sets quadratic forms of the cross-products to their means. With M the projection off X,
z_q a column of Z, s_b the variance of one coefficient of one term and Z_b its columns,

    E (z_q^T y)^2 = sum_b s_b |z_q^T M Z_b|^2 + sigma^2 z_q^T M z_q,
    E y^T M y     = sum_b s_b tr(Z_b^T M Z_b) + sigma^2 (n - p)

are linear in the variances (Hartley, Rao & LaMotte 1978, Biometrics 34, 233-242). The first are
added up within each coefficient with weights that let every level count as much as its rows know of
it; the second less what the effects explain, one by one. Consistent, and within a few standard
errors of the maximum at the cost of one product; correlations start at 0. Coefficients of sparse
columns count as effects of one more term.
"""

from copy import copy
from functools import partial
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from sklmm.engine.algorithms.loop import Iteration, joint_loss
from sklmm.engine.algorithms.reml_cg import Probed
from sklmm.engine.equations.crossproducts import CrossProducts
from sklmm.engine.equations.henderson import Solution, evaluate, loglik
from sklmm.engine.equations.schur_cholesky import SchurCholesky
from sklmm.engine.linalg.newton import ascent, by_differences, inverse
from sklmm.engine.posterior.degrees import satterthwaite
from sklmm.engine.posterior.gaussian import posterior_from_equations
from sklmm.engine.theta.space import MIN_RAW, RAISED_SD, SINGULAR_SD, Space, Theta, residual_sd
from sklmm.steps import Exact

N_EM_STEPS = 2
#: Newton steps longer than this, in y's residual SD or log sigma, are EM's to take at first.
FAR = 0.3
#: Share of the log-likelihood by which it may fall without a step being taken back: rounding.
MIN_GAIN = 1e-9
#: The damping of the first step that is taken back, how it grows with each such step and falls with
#: each other, and the one that is none.
FIRST_DAMPING = 0.05
DAMPING_FACTOR = 4
NO_DAMPING = 0.01
#: Share of the largest information up to which a direction has none (residual and group variance
#: confounded), and the longest step, in an entry of theta.
FLAT = 1e-9
MAX_STEP = 1.0
#: Slope of the log-likelihood in a variance of 0, a level, that raises it.
LEAST_GAIN = 1e-6
#: A step that is longer than this share of the one before is slow, and after so many of them the
#: information is measured, of covariances that are not linear in theta.
SLOW = 0.5
PATIENCE = 2
#: Steps to singular equations that are taken back, at most.
MOST_RETREATS = 8
#: Iterations of a second start, at most.
MOST_ELSEWHERE = 30
#: Rounds of the start: the weights of its quadratic forms are those of the variances before.
N_PASSES = 2
#: Least SD of a term, as a share of sigma, and least sigma as one of y's SD: Newton wants a slope.
LEAST_SD = 0.1
LEAST_SIGMA = 0.01
#: Share of y's variance that the residual has where the moments leave it none.
SPLIT = 0.3
#: Least share of a variance that is its coefficient's own where those of the table are unrelated.
LEAST_OWN = 0.05
#: Most of the residual's degrees of freedom that its equation may take away.
MOST_EXPLAINED = 0.5


class Factorised(NamedTuple):
    """The equations by Cholesky's method: in float64, with exact traces.

    `rotated` are cross-products with the same likelihood, of fewer levels where there are such.
    """

    cross: CrossProducts
    rotated: CrossProducts

    @staticmethod
    def of(cross):
        """Those of some cross-products."""
        if isinstance(cross.G_EE, np.ndarray):
            return Factorised(cross, cross)
        from sklmm.engine.equations.rotated import rotated

        return Factorised(cross, rotated(cross))

    def at(self, cross):
        """Those of other cross-products of the same terms."""
        return Factorised(cross, cross)

    def equations(self, theta, before=None, probed=False):
        """The equations at theta, solved; if `probed`, for the likelihood and not the effects.

        The other argument is for `Probed`.
        """
        cross = self.rotated if probed else self.cross
        s2 = residual_sd(cross.problem, theta) ** 2
        return Solution(theta.factors, s2, cross, SchurCholesky(cross, theta.factors, s2))

    def traces(self, equations):
        """Summed blocks of Z^T V^-1 Z, and no deviations of them."""
        return equations.H.traces(), None

    def log_det(self, equations):
        """log |H|."""
        return equations.H.log_det


class Reml:
    """The fit of a Gaussian problem by `step`, an `Exact` or a `ConjugateGradient`.

    `dof` is the rule of degrees of freedom, "satterthwaite" or "kenward-roger", or None.
    """

    stochastic = False
    #: Whether the information at the maximum is measured in any case, and the theta at which it
    #: last was.
    measures = False
    measured = None

    def __init__(self, problem, step, tol, seed, n_draws, start=None, dof=None):
        self.problem, self.space = problem, Space.gaussian(problem)
        self.tol, self.seed, self.n_draws, self.dof = tol, seed, n_draws, dof
        cross = CrossProducts(problem)
        exact = isinstance(step, Exact)
        self.solver = Factorised.of(cross) if exact else Probed(cross, step, seed)
        self.theta = moment_start(cross) if start is None else start
        self.seen = None
        #: Where Sigma bends in theta a model may be far from its data, as a correlation of all
        #: pairs is from one that decays, and the average information far from the observed one.
        self.bent = not all(c.linear for c in self.space.covariances)
        #: A prior adds to a likelihood's curvature, and what is average of it may be little beside.
        self.bent |= problem.priors is not None
        #: Whether a second start is tried where there is one.
        self.again = True

    def steps(self):
        """Yield `Iteration`s."""
        space, best, damping, retreats = self.space, None, 0.0, 0
        lacking, slow, length, size, raised, ended = 0.0, 0, np.inf, RAISED_SD, None, False
        again = self.again
        for iteration in count(1):
            try:
                seen = self.seen = self.look(self.theta, self.seen)
            except np.linalg.LinAlgError:
                # Singular to working precision: the step before was too long.
                retreats += 1
                if best is None or retreats > MOST_RETREATS:
                    raise
                seen = None
            if best is not None and _is_worse(seen, best):
                seen, damping = best, max(DAMPING_FACTOR * damping, FIRST_DAMPING)
                size = size if raised is None else size / DAMPING_FACTOR
            else:
                seen = seen._replace(observed=seen.observed + lacking)
                best, damping = seen, damping / DAMPING_FACTOR if damping > NO_DAMPING else 0.0
            last, (step, length) = length, newton_step(seen, damping)
            slow += self.bent and length > SLOW * last
            # The steps' information may be far too large where an SD by row vanishes slowly.
            if slow > PATIENCE or (self.measures and length < self.tol):
                measured, slow = self._measured(seen.theta, seen)[0], 0
                self.measured = seen.theta
                lacking = lacking + measured - seen.observed
                best = seen = seen._replace(observed=measured)
                step, length = newton_step(seen, damping)
            raised = None
            if length < self.tol and size > SINGULAR_SD:
                raised = leave_boundary(self.problem, seen, size)
            if length < self.tol and raised is None and not ended:
                raised, ended = to_boundary(self.problem, seen), True
            if length < self.tol and raised is None and again:
                raised, again = self._elsewhere(seen), False
            far = np.abs(step).max(initial=0.0) > FAR and damping == 0
            if raised is not None:
                self.theta = raised
            elif iteration <= N_EM_STEPS and far:
                self.theta = self.em_step(seen)
            else:
                self.theta = move(space, seen.theta, step)
            yield Iteration(
                theta=seen.theta._replace(beta=seen.beta),
                loss=joint_loss(self.problem, seen.theta.factors, -seen.joint),
                loglik=np.nan if seen.loglik is None else seen.loglik,
                decrement=length,
                done=length < self.tol and raised is None,
                estimate=self.theta._replace(beta=seen.beta),
                errors=partial(self._errors, seen),
            )

    def em_step(self, seen):
        """Theta after a step of EM."""
        return em_step(self.problem, seen)

    def vanished(self, theta):
        """Which of the family's parameters a residual SD of 0 in some rows leaves untold."""
        return np.zeros(len(self.space.parameters), bool)

    def arbitrary(self):
        """Which of the family's parameters have the same likelihood whatever their value."""
        return np.zeros(len(self.space.parameters), bool)

    def _elsewhere(self, seen):
        """Theta of a higher likelihood by another start than that which led to `seen`, or None."""
        least = SINGULAR_SD * residual_sd(self.problem, seen.theta)
        pairs = zip(self.space.covariances, seen.theta.factors, strict=True)
        start = _with(seen.theta, [c.elsewhere(L, least) for c, L in pairs])
        if start is None or seen.loglik is None:
            return None
        other = copy(self)
        other.theta, other.again = start, False
        try:
            *_, last = _until_done(islice(other.steps(), MOST_ELSEWHERE))
        except np.linalg.LinAlgError:
            return None
        better = last.loglik > seen.loglik + MIN_GAIN * (1 + abs(seen.loglik))
        return last.theta if better else None

    def _errors(self, seen):
        """The covariance [p + m, p + m] at an `Evaluation`, and its Monte Carlo covariance.

        Where Sigma bends the information is measured: that of the steps depends on their path.
        """
        measured = (self.bent or self.measures) and self.measured is not seen.theta
        information = self._measured(seen.theta, seen)[0] if measured else seen.observed
        covariance = inverse(information)
        return self.space.with_beta(covariance), _probes_spread(seen, covariance)

    def look(self, theta, before=None, inform=True):
        """`Evaluation` at theta, its solves started from those of the evaluation `before`."""
        return self.evaluation(theta, self.solver.equations(theta, before, probed=True), inform)

    def evaluation(self, theta, equations, inform=True):
        """`Evaluation` by solved equations, with the information unless that is not asked for."""
        seen = evaluate(theta, equations, *self.solver.traces(equations), inform)
        return self.with_prior(theta, seen, inform)

    def with_prior(self, theta, seen, inform):
        """An `Evaluation` at theta with the priors' part, where there are any."""
        if (prior := self.space.log_prior(theta)) is None:
            return seen
        return seen._replace(
            loglik=None if seen.loglik is None else seen.loglik + prior.value,
            gradient=seen.gradient + prior.gradient,
            information=seen.information + prior.curvature if inform else None,
            observed=seen.observed + prior.curvature if inform else None,
        )

    def equations(self, theta):
        """The equations at theta, solved as accurately as the solver is asked to."""
        return self.solver.equations(theta, self.seen)

    def information(self, theta):
        """The observed information [m, m] of theta."""
        return self._measured(theta)[0]

    def covariance(self, theta):
        """The covariance [m, m] of theta by the observed information, differences of gradients.

        And the largest relative residual of a solve for it that did not converge, or 0.
        """
        information, unsolved = self._measured(theta)
        return inverse(information), unsolved

    def _measured(self, theta, seen=None):
        """The observed information by differences of gradients, and that residual.

        Of an `Evaluation` at theta, `seen`, the gradient counts where solves are exact.
        """
        centre = seen.gradient if seen is not None and seen.noise is None else None
        unsolved, at = [0.0], self.space.join(theta)

        def gradient(delta):
            flat = at + delta
            seen = self.look(self.space.split(flat), self.seen, inform=False)
            unsolved.append(seen.unsolved)
            # Of two parameters for one factor the slope is that at the other one, mirrored.
            return np.where(flat * self.space.settled(flat) < 0, -1.0, 1.0) * seen.gradient

        information = by_differences(gradient, self.space.size, centre)
        # Of what the data do not tell differences are rounding.
        size = np.abs(information).max(axis=0, initial=0.0)
        rounding = size <= FLAT * size.max(initial=0.0)
        information[rounding] = information[:, rounding] = 0.0
        return information, max(unsolved)

    def posterior(self, last):
        """`Posterior` at the estimate of an iteration."""
        equations = self.equations(last.estimate)
        posterior = posterior_from_equations(equations, self.seed, self.n_draws)
        if (log_det := self.solver.log_det(equations)) is not None:
            posterior = posterior._replace(loglik=loglik(equations, log_det), loglik_error=0.0)
        if self.dof is None:
            return posterior
        if self.dof == "kenward-roger":
            from sklmm.engine.posterior.kenward_roger import kenward_roger

            return posterior._replace(degrees=kenward_roger(equations))
        covariance, unsolved = self.covariance(last.estimate)
        unsolved = max(unsolved, posterior.unsolved)
        degrees = satterthwaite(equations, covariance, *self.residual_slopes(equations))
        return posterior._replace(degrees=degrees, unsolved=unsolved)

    def residual_slopes(self, equations):
        """What `satterthwaite` is to know of a residual variance that is no one number."""
        return ()


def _until_done(iterations):
    for iteration in iterations:
        yield iteration
        if iteration.done:
            return


def _is_worse(new, old):
    """Whether the log-likelihood has fallen, or does not exist; False where it is not known."""
    if new is None or new.loglik is None:
        return new is None
    return not new.loglik > old.loglik - MIN_GAIN * (1 + abs(old.loglik))


def _probes_spread(seen, covariance):
    """Covariance [p + m, p + m] of (beta, theta) by the gradient's noise, None without such."""
    if seen.noise is None:
        return None
    # d theta = M^-1 dg, and beta follows theta.
    path = np.concatenate([seen.sensitivity, np.eye(len(covariance))]) @ covariance
    return path @ (np.cov(seen.noise.T) / len(seen.noise)) @ path.T


def newton_step(seen, damping=0.0):
    """Newton's step [m] from an `Evaluation`, and its length in standard errors.

    By absolute eigenvalues, so that it climbs from a saddle too; a sigma that falls at its bound is
    left alone.
    """
    step, free = np.zeros(len(seen.gradient)), slice(None)
    if (seen.theta.raw <= MIN_RAW).any() and seen.score_sigma < 0:
        free = slice(-1)
    own, length = ascent(seen.observed[free, free], seen.gradient[free], damping, FLAT)
    step[free] = own * min(1.0, MAX_STEP / max(np.abs(own).max(initial=0.0), 1e-300))
    return step, length


def move(space, theta, step):
    """Theta after a step; the diagonals of factors stay nonnegative."""
    moved = space.moved(theta, step)
    factors = [c.oriented(L) for c, L in zip(space.covariances, moved.factors, strict=True)]
    # Of SDs by row each row's own is bounded.
    raw = moved.raw if space.problem.models else np.maximum(moved.raw, MIN_RAW)
    return moved._replace(factors=tuple(factors), raw=raw)


def em_step(problem, seen):
    """EM step: by Sigma_k + (2 / J_k) Sigma_k G_k Sigma_k, and to sigma^2 (1 + g / n)."""
    factors, theta = [], seen.theta
    for block, L, G in zip(problem.blocks, theta.factors, seen.score, strict=True):
        inner = np.eye(block.r) + 2 / block.n_levels * (L.T @ G @ L)
        values, vectors = np.linalg.eigh(inner)
        inner = (vectors * np.maximum(values, 0.01)) @ vectors.T
        factors.append(block.covariance.nearest(L @ np.linalg.cholesky(inner)))
    raw = theta.raw + 0.5 * np.log(max(1 + seen.score_sigma / problem.n, 0.01))
    return theta._replace(factors=tuple(factors), raw=np.maximum(raw, MIN_RAW))


def leave_boundary(problem, seen, size=RAISED_SD):
    """Theta with a variance raised from 0 where the log-likelihood rises with it, else None.

    It is raised to an SD of the share `size` of sigma.
    At L = 0 the gradient in L vanishes whatever the sign of G, so Newton would stop at a saddle.
    """
    theta, sigma, factors = seen.theta, residual_sd(problem, seen.theta), []
    for block, L, G in zip(problem.blocks, theta.factors, seen.score, strict=True):
        gain = LEAST_GAIN * block.n_levels
        factors.append(
            block.covariance.leave_boundary(L, G, SINGULAR_SD * sigma, size * sigma, gain)
        )
    return _with(theta, factors)


def to_boundary(problem, seen):
    """Theta with each covariance that is near an end of its range at it, None where none is."""
    pairs = zip(problem.blocks, seen.theta.factors, strict=True)
    factors = [block.covariance.to_boundary(L) for block, L in pairs]
    return _with(seen.theta, factors)


def _with(theta, factors):
    """Theta with those factors that are not None, None where all are."""
    if all(new is None for new in factors):
        return None
    pairs = zip(factors, theta.factors, strict=True)
    return theta._replace(factors=tuple(L if new is None else new for new, L in pairs))


def moment_start(cross):
    """Theta to start from; pinned SDs stay as they are."""
    problem, blocks = cross.problem, cross.problem.blocks
    # A known covariance has one factor, the nearest to any.
    pinned, widths = [], list(map(_n_variances, blocks))
    for b, width in zip(blocks, widths, strict=True):
        if b.covariance.n_params:
            pinned += [np.nan] * width
        else:
            pinned += np.linalg.norm(b.covariance.nearest(np.eye(b.r)), axis=1).tolist()
    if cross.columns is not None:
        pinned.append(np.nan)
    pinned = np.array([*pinned, problem.sigma], dtype=float)
    free = np.isnan(pinned)
    variances = np.where(free, 1.0, pinned**2)
    forms = _forms(cross)
    least = LEAST_SIGMA**2 * cross.yy / problem.n
    # Without an unknown SciPy's solver would free its memory twice, and the process ends.
    for _ in range(N_PASSES if free.any() else 0):
        A, q = _equations(cross, forms, variances)
        q = q - A[:, ~free] @ variances[~free]
        # Rows in units of their own: the solver is least squares, and the sums differ by powers.
        scale = np.abs(A.diagonal())[free]
        scale = np.where(scale > 0, scale, 1.0)
        variances[free] = nnls(A[free][:, free] / scale[:, None], q[free] / scale)[0]
        if free[-1]:
            variances[-1] = max(variances[-1], least)
        variances[free] = np.maximum(variances[free], LEAST_SD**2 * variances[-1])
    if free[-1] and variances[-1] <= least and not all(b.covariance.linear for b in blocks):
        # Effects of a row each are told from the residual by their correlations alone.
        variances[free] *= 1 - SPLIT
        variances[-1] = SPLIT * cross.yy / problem.n
    sds, factors = np.sqrt(variances), []
    residual = sds[-1]
    for k, (b, width, A) in enumerate(zip(blocks, widths, problem.z_bases, strict=True)):
        own, sds = np.broadcast_to(sds[:width], b.r), sds[width:]
        if width < b.r and problem.sigma is None and not b.coupled:
            from sklmm.engine.algorithms.along_start import along_start

            found = along_start(cross, k, own[0] ** 2, residual**2)
            if found is not None:
                factors.append(found[0])
                residual = np.sqrt(found[1])
                continue
        if b.relation is not None and b.covariance.n_params:
            # As if levels were not related, but for how much each is to itself.
            own = own / np.sqrt(b.relation.variances.mean())
        factors.append(b.covariance.nearest(_uncorrelated(own, A)))
    raw = np.log([residual]) if problem.sigma is None else np.zeros(0)
    return Theta(np.zeros(0), tuple(factors), raw)


def _n_variances(block):
    """How many variances a term's coefficients start with: one where its parameters are few."""
    return 1 if 0 < block.covariance.n_params < block.r else block.r


def _uncorrelated(sds, basis):
    """A factor with these SDs, of coefficients that are unrelated in the table's own basis.

    Where that is far from the data there are none with the SDs, and it is in standard units.
    """
    back = np.linalg.inv(basis)
    own = np.linalg.solve(back**2, sds**2)
    if (own * np.diag(back) ** 2 < LEAST_OWN * sds**2).any():
        return np.diag(sds)
    return np.linalg.cholesky((back * own) @ back.T)


def _forms(cross):
    """member [Q, c], whose variance each effect has; |z_q^T M Z_b|^2 [Q, c]; z_q^T M z_q [Q]."""
    problem, n, F = cross.problem, cross.problem.n, cross.F
    owner, count = np.empty(cross.Q, int), 0
    for b, s in zip(problem.blocks, cross.slices, strict=True):
        width = _n_variances(b)
        owner[s] = count + np.arange(s.stop - s.start) % width
        count += width
    if cross.columns is not None:
        owner[cross.flat] = count
        count += 1
    member = np.eye(count)[owner]
    squares = cross.squares(member)
    # X^T w X = n I: M takes F F^T / n from Z^T w Z.
    own = member[:, :, None] * F[:, None]
    image = cross.product(own.reshape(cross.Q, count * cross.p)).reshape(own.shape)
    for a in range(count):
        both = F @ (own[:, a].T @ F / n) - 2 * image[:, a]
        squares[:, a] += (F * both).sum(axis=1) / n
    return member, squares, cross.diagonal() - (F**2).sum(axis=1) / n


def _equations(cross, forms, variances):
    """A [c + 1, c + 1] and q [c + 1] of the variances, sigma's last."""
    problem, (member, squares, sizes) = cross.problem, forms
    ratio = member @ (variances[-1] / np.maximum(variances[:-1], LEAST_SD**2 * variances[-1]))
    weights = 1 / (cross.diagonal() + ratio)
    level = member * weights[:, None] ** 2
    own = np.maximum(sizes, 0.0)
    dof = problem.n - cross.p
    taken = weights * min(1.0, MOST_EXPLAINED * dof / max(weights @ own, 1e-300))
    c = len(variances) - 1
    A = np.empty((c + 1, c + 1))
    A[:c, :c], A[:c, c] = level.T @ squares, level.T @ own
    A[c, :c], A[c, c] = own @ member - taken @ squares, dof - taken @ own
    q = np.append(level.T @ cross.zy**2, cross.yy - taken @ cross.zy**2)
    return A, q
