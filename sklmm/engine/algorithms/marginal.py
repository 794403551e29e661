r"""The marginal log-likelihood of any family at an estimate, when it is asked for.

It is Laplace's approximation, and what is left on the path from its Gaussian to the posterior
(`engine.posterior.path`), of which draws tell (`engine.latent.tempered`).
"""

import numpy as np

from sklmm._threads import single_blas
from sklmm.engine.latent.mode import Latent
from sklmm.engine.latent.tempered import Chains, Controls, Path
from sklmm.engine.likelihood.likelihood import observes
from sklmm.engine.limits import blas, factorisable
from sklmm.engine.posterior.path import Integral

#: Numbers of chains, by rows times chains; of transitions to a node's first draw, of large tables
#: and of small ones (a chain stays at the node below with a chance of .15 a transition); of its
#: first draws; and of independent ones at tau = 0.
CHAINS = (10, 64)
CHAIN_ROWS = 1 << 20
BURN_IN = (2, 8)
FIRST_DRAWS = 3
EXACT_DRAWS = 6
#: Standard errors at which there are nodes and draws enough, of a table of so many rows at most and
#: of one of six times as many, at least: noise and costs both grow with the table. The share of it
#: that log |C| leaves at the least; and transitions at most.
ERROR = (0.1, 0.25)
ERROR_ROWS = 1 << 17
LEAST_SHARE = 0.5
MOST_TRANSITIONS = 1024


def marginal(problem, like, parameters, theta, near, seed, log_constant):
    """(log p(y), its Monte Carlo standard error) at theta, with what the rows' densities lack.

    `near` [P] is near the mode of the latent variables there. (None, 0.0) where the mode has no
    curvature, or the densities no value about it.
    """
    sizes = [b.n_levels * b.r for b in problem.blocks]
    # The observed curvature is nearer, where there is a factor that tells if it is positive.
    coupled = [b.coupled for b in problem.blocks]
    direct = factorisable(sizes, "log_det", coupled) and observes(like)
    latent = Latent(problem, like, parameters, direct=direct)
    rng = np.random.default_rng(seed)
    try:
        threads = single_blas() if latent.whole else blas(sizes, problem.p, coupled)
        # What overflows on the way ends in a value that is not finite.
        with threads, np.errstate(over="ignore", invalid="ignore"):
            value, error = along_path(latent, theta, near, rng)
    except np.linalg.LinAlgError:
        return None, 0.0
    if not np.isfinite([value, error]).all():
        return None, 0.0
    return float(value + latent.log_constant + log_constant), error


def along_path(latent, theta, start, rng):
    """(log p(y), its error) at theta, from a mode that is near `start`; NaN where r has no mean.

    And where the density has no gradient there, as at parameters at which a fit ended too early.
    """
    if not np.isfinite(latent.gradient(theta, start[:, None])[1]).all():
        return np.nan, np.nan
    mode, equations = latent.mode(theta, start)
    path = Path(latent, theta, mode, equations)
    integral = Integral(halved=latent.n_rows > ERROR_ROWS)
    n_chains = int(np.clip(CHAIN_ROWS // latent.n_rows, *CHAINS)) // 2 * 2 + 1
    error = float(np.clip(ERROR[0] * np.sqrt(latent.n_rows / ERROR_ROWS), *ERROR))
    left = error**2 - (0.5 * equations.log_det_error) ** 2
    allowed = np.sqrt(max(left, (LEAST_SHARE * error) ** 2))
    burn_in = BURN_IN[latent.whole]
    chains, transitions, controls = {}, 0, None

    def draw(tau, n):
        """N more draws of every chain at a node, or independent ones where that is easy."""
        for _ in range(n):
            if tau:
                chains[tau].move(tau)
            else:
                v = path.draws(rng, n_chains)
                chains[tau] = Chains(path, v, path.look(v), rng)
            here = chains[tau]
            integral.add(tau, here.seen.rest, controls.at(tau, here.v, here.seen))
        return n if tau else 0

    v = path.draws(rng, n_chains)
    controls = Controls(v, path.look(v), path.exact)
    draw(0.0, EXACT_DRAWS)
    while True:
        for tau in integral.missing():
            # From the node below, whose density is the nearest.
            chains[tau] = chains[max(t for t in chains if t < tau)].copy()
            for _ in range(burn_in):
                chains[tau].move(tau)
            transitions += burn_in + draw(tau, FIRST_DRAWS)
        total, noises = integral.total()
        if not np.isfinite(total.error):
            # Draws of the Gaussian leave the means that an identity link allows.
            return np.nan, np.nan
        if total.error < allowed or transitions > MOST_TRANSITIONS:
            break
        if total.bias > total.noise:
            integral.halve()
        else:
            tau = max(noises, key=noises.get)
            transitions += draw(tau, integral.n_draws(tau) // 2)
    error = np.hypot(total.error, 0.5 * equations.log_det_error)
    return path.reference + total.value, float(error)
