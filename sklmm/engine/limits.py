"""What is affordable: the sizes up to which a dense or exact way is taken, each with its reason."""

import math
from contextlib import nullcontext
from itertools import zip_longest

from sklmm._threads import single_blas

#: For what the equations are solved: the effects beside the largest term, and the multiplications,
#: up to which they are factorised. Beyond them conjugate gradients (and probes) take over.
FACTORISED = {
    # Up to here a factorisation is as fast as conjugate gradients are for a whole fit.
    "fit": (2000, 2e10),
    # A mode's Newton steps want one solution of each factor: so large it takes as long as that.
    "solves": (256, math.inf),
    # Laplace's gradient is exact with a factor and noisy without: that is worth more time.
    "gradient": (4000, math.inf),
    # log |C| is asked for once, at the estimate; a dense factor has 50 megabytes.
    "log_det": (2500, math.inf),
}
#: Effects beside the largest term, and coefficients, up to which BLAS's threads wait for each other
#: longer than they work, all the more where others use the cores too.
ONE_THREAD = 1500
#: Rows n of a table whose latent part of P unknowns is worked on densely in NumPy, and operations
#: m n P^2 of making C once for each of m parameters: compiling would take longer.
SMALL_ROWS = 4096
SMALL_WORK = 2e8
#: Columns that an exact root of the posterior may have: beyond it draws stand for the root.
EXACT_ROOT = 2048
#: Draws that stand for a root, fewest and most, and those that are kept for the predictions of
#: nonlinear families, which average over them; and the numbers that they may have in all.
DRAWS = (16, 64)
NONLINEAR_DRAWS = (64, 512)
KEPT_NUMBERS = 1 << 20
#: Effects left by elimination up to which each has a unit vector for its trace: no probe is as
#: cheap as an answer without noise, which at a variance near 0 decides where the maximum is.
EXACT_TRACES = 512
#: Rows times points of an evaluation of quadrature: with the 15 points a dimension that a fit takes
#: at least, up to which it is chosen without being named, as a fit of some fifty evaluations then
#: takes seconds; those up to which points are doubled; and of one level of the coarsest factor,
#: whose rows are in memory together. Effects of one level up to which it is chosen.
QUADRATURE = {"chosen": 1 << 24, "doubled": 1 << 27, "together": 1 << 24}
QUADRATURE_POINTS = 15
QUADRATURE_EFFECTS = 2
#: Points a dimension that are taken at most: of 511, twice as many, the outermost weights of Gauss
#: and Hermite's rule are 0 in float64.
MOST_POINTS = 255


def left(sizes, coupled=()):
    """Effects that elimination leaves of terms of so many each, of which some may be `coupled`.

    The largest one whose levels are not is eliminated.
    """
    apart = [size for size, c in zip_longest(sizes, coupled, fillvalue=False) if not c]
    return sum(sizes) - max(apart, default=0)


def factorisable(sizes, purpose="fit", coupled=()):
    """Whether equations of terms of so many effects each are factorised, for a purpose."""
    beside = left(sizes, coupled)
    most, work = FACTORISED[purpose]
    return beside <= most and beside**2 * sum(sizes) <= work


def blas(sizes, p, coupled=()):
    """A context in which BLAS has the threads that a fit of these terms and p columns gains by."""
    dense = max(left(sizes, coupled), p)
    return single_blas() if dense <= ONE_THREAD else nullcontext()


def is_small(n_rows, n_unknowns, n_parameters):
    """Whether the latent part of a table is worked on densely, without compiled steps."""
    work = n_parameters * n_rows * n_unknowns**2
    return n_rows <= SMALL_ROWS and work <= SMALL_WORK


def gaussian_draws(n_unknowns):
    """Draws of the unknowns of a Gaussian model that stand for a root of its posterior."""
    return _between(DRAWS, KEPT_NUMBERS // (2 * max(n_unknowns, 1)))


def nonlinear_draws(n_effects):
    """Draws of the effects that are kept of a model whose predictions average over them."""
    return _between(NONLINEAR_DRAWS, KEPT_NUMBERS // max(n_effects, 1))


def _between(bounds, value):
    return min(max(value, bounds[0]), bounds[1])


def integrable(n_rows, largest, effects, purpose="chosen", n_points=QUADRATURE_POINTS):
    """Whether quadrature of nested factors is affordable, for a purpose.

    They have so many `effects` a level each, and the coarsest one's largest level `largest` rows.
    """
    points = float(n_points) ** sum(effects)
    fits = n_rows * points <= QUADRATURE[purpose] and largest * points <= QUADRATURE["together"]
    return fits and (purpose != "chosen" or max(effects) <= QUADRATURE_EFFECTS)
