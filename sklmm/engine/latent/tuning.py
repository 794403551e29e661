"""How many chains, and trajectories of which steps: what samplers of both backends have.

Trajectories are of random lengths, a quarter to nearly half a turn, after which neither x nor x^2
remembers where it began: not all directions turn at the same rate.
"""

import numpy as np
from scipy.special import ndtri

from sklmm.engine.runtime.compilation import bucket

TARGET_ACCEPTANCE = 0.85
#: The longest trajectory in whitened units, and the shortest's share of it.
TRAJECTORY = 2.8
SHORTEST = 0.5
JITTER = 0.2
FIRST_STEP = 2.0
MAX_LEAPFROGS = 64
#: Rounding of log p, and of its gradient in whitened units, from which float64 is needed; chains
#: that are looked at.
MOST_ROUNDING = 0.05
LOOKED_AT = 2
#: The adaptation fades.
ADAPTATION_POWER = 0.6
LEAST_RATE = 0.05
#: With jitter less than 1.72, from where a direction of precision 2 makes split steps unstable: two
#: crossed terms make such ones.
LONGEST_STEP = 1.4
WARM_UPS = 2
#: Chains, by default: as many as rows times chains allow, within bounds; and of large tables fewer,
#: whose fits would be sure of their estimates before their shortest averages end.
CHAINS = (16, 128)
CHAIN_ROWS = 1 << 18
FEWEST_CHAINS = 8
MOST_ROWS = 1 << 22


def default_chains(n_rows):
    """An even number of chains for a table of `n_rows`, one for all of a shape bucket."""
    rows = bucket(n_rows)
    most = int(np.clip(MOST_ROWS // rows, FEWEST_CHAINS, CHAINS[0]))
    return 2 * max(min(CHAIN_ROWS // rows, CHAINS[1]) // 2, most // 2)


def first_step(e_step, n_unknowns):
    """The step at which the adaptation begins, or that of the E-step."""
    return e_step.step_size or min(FIRST_STEP * max(n_unknowns, 1) ** -0.25, LONGEST_STEP)


def lengths(e_step, step):
    """Fewest and most steps of a trajectory."""
    if e_step is not None and e_step.num_leapfrog_steps:
        most = min(e_step.num_leapfrog_steps, MAX_LEAPFROGS)
        return most, most
    most = int(np.clip(np.ceil(TRAJECTORY / step), 1, MAX_LEAPFROGS))
    return max(int(SHORTEST * most), 1), most


def adapted(step, rate, gain):
    """The step at which the acceptance rate is on target, as 2 Phi(-c step^2) says, or near it.

    Beskos et al. (2013), Bernoulli 19, 1501-1534: the error in energy is normal, its SD ~ step^2.
    """
    wanted, found = ndtri(0.5 * np.clip([TARGET_ACCEPTANCE, rate], LEAST_RATE, 1 - LEAST_RATE))
    return min(step * (wanted / found) ** (0.5 * gain), LONGEST_STEP)


def rounding(both):
    """By how much float32 changes differences of log p between chains, and its gradient.

    From log p [C] and its gradient [C, P] in either precision.
    """
    with np.errstate(all="ignore"):
        value, gradient = (np.asarray(a, float) - b for a, b in zip(*both, strict=True))
        error = max(np.ptp(value), np.linalg.norm(gradient, axis=1).max(initial=0.0))
    return error if np.isfinite(error) else np.inf
