"""E-steps and M-steps as parameter holders; they import no TensorFlow.

`clone`, `set_params(e_step__step_size=...)` and `GridSearchCV` reach their parameters; the engine's
entry has a table from each to its algorithm.
"""

from numbers import Integral, Real

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

_COUNT = [Interval(Integral, 1, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]


class EStep(BaseEstimator):
    """Base class of E-steps."""

    #: What a summary says of it beside the criterion that it maximises.
    approximation = None


class Exact(EStep):
    """Exact E-step of a Gaussian model: a Cholesky factorisation in float64, deterministic.

    The largest term is eliminated level by level, so its number of levels hardly counts; the
    others' R effects are factorised densely, in memory R^2 and time R^2 Q of Q effects: for R up to
    a few thousand. It needs no TensorFlow.

    Examples
    --------
    >>> from sklmm import Exact
    >>> Exact()
    Exact()
    """

    _parameter_constraints = {}


class ConjugateGradient(EStep):
    """Matrix-free E-step of a Gaussian model, for any number of random effects.

    Parameters
    ----------
    n_probes : int, optional
        Rademacher probes for the traces of terms with many levels, at least 2; their Monte Carlo
        error, reported in `mc_error_`, falls as 1 / sqrt(n_probes). None takes 2 to 8, fewer the
        more rows an effect has, and none, for exact traces, where elimination leaves at most 512
        effects.
    tol : float, default=1e-8
        Relative residual of the solver in the last steps; the first ones are solved less tightly.
    max_iter : int, default=2000
        Most iterations of one solve; the fit warns where one ended there.

    References
    ----------
    Hutchinson (1990), Commun. Stat. Simul. Comput. 19, 433-450 (the probes).

    Examples
    --------
    >>> from sklmm import ConjugateGradient
    >>> ConjugateGradient(n_probes=16)
    ConjugateGradient(n_probes=16)
    """

    approximation = "conjugate gradients"
    _parameter_constraints = {
        "n_probes": [Interval(Integral, 2, None, closed="left"), None],
        "tol": _POSITIVE,
        "max_iter": _COUNT,
    }

    def __init__(self, n_probes=None, tol=1e-8, max_iter=2000):
        self.n_probes = n_probes
        self.tol = tol
        self.max_iter = max_iter


class Laplace(EStep):
    """Laplace approximation: a quick answer for any family, biased for sparse binary data.

    Parameters
    ----------
    n_probes : int, default=32
        At least 2. Draws that stand for ``log |C|`` where the model is too large for an exact one.
    curvature : {"observed", "expected"}, default="observed"
        The second derivative of a row's log density in its linear predictor that ``log |C|`` has:
        its own one, as in TMB, or its mean over the responses, as in lme4. They are the same for
        ordinal models and for the canonical links (Poisson's log, the binomial's logit); elsewhere
        the observed one is nearer to the integral. It is the expected one in any case for the
        Student t, whose observed ``C`` may be singular at a mode, where the approximation has no
        bound. Gamma by the identity link may come there too where means are
        near 0: it then says that it did not converge, and "expected" is the remedy.

    References
    ----------
    Bates (2011), "Computational methods for mixed models", lme4 vignette.
    Kristensen, Nielsen, Berg, Skaug & Bell (2016), J. Stat. Softw. 70(5), 1-21 (TMB).

    Examples
    --------
    >>> from sklmm import Laplace
    >>> Laplace(curvature="expected")
    Laplace(curvature='expected')
    """

    approximation = "Laplace approximation"
    _parameter_constraints = {
        "n_probes": [Interval(Integral, 2, None, closed="left")],
        "curvature": [StrOptions({"observed", "expected"})],
    }

    def __init__(self, n_probes=32, curvature="observed"):
        self.n_probes = n_probes
        self.curvature = curvature


class Quadrature(EStep):
    """Adaptive Gauss-Hermite quadrature: exact maximum likelihood, without noise.

    For one grouping factor, and for nested ones, ``(1 | batch / cask)``, an inner level's integral
    within each of an outer one's points; with a few effects a level, and any family. Terms may
    share a factor. What it costs is rows times ``n_points ** d``, d the effects of all depths
    together, and of each linear predictor of a categorical family. It maximises the likelihood
    (``method="ml"``) and has no REML.

    Parameters
    ----------
    n_points : int, optional
        Points a dimension, about each level's mode; 1 is `Laplace`. The gradient is the exact
        likelihood's by the same points, which 2 to 5 tell roughly where groups are small. None
        doubles them until the log-likelihood moves by less than 1e-3, from 7 on, and reports that
        by the larger number. Where so many are not affordable `loglik_error_` says by how much it
        still moved, and is 0 otherwise.

    References
    ----------
    Pinheiro & Bates (1995), "Approximations to the log-likelihood function in the nonlinear
    mixed-effects model", J. Comput. Graph. Stat. 4, 12-35.
    Rabe-Hesketh, Skrondal & Pickles (2005), J. Econometrics 128, 301-323 (nested factors).

    Examples
    --------
    >>> from sklmm import Quadrature
    >>> Quadrature(n_points=25)
    Quadrature(n_points=25)
    """

    approximation = "adaptive Gauss-Hermite quadrature"
    _parameter_constraints = {"n_points": [Interval(Integral, 1, 255, closed="both"), None]}

    def __init__(self, n_points=None):
        self.n_points = n_points


class HMC(EStep):
    """Monte Carlo EM with Hamiltonian Monte Carlo.

    By default several chains run in parallel, in antithetic pairs, about the posterior's mode and
    in coordinates in which its spread is nearly N(0, I). That Gaussian part of the motion is
    integrated exactly (split HMC), so steps are long. The step size is adapted during burn-in, and
    trajectories have random lengths. With ``m_step="adam"`` the chains are those of
    `tfp.mcmc.HamiltonianMonteCarlo` in the effects' own units, as in the loop of TensorFlow's
    tutorial.

    Parameters
    ----------
    step_size : float, optional
        Step, in radians of the Gaussian part's turn (leapfrog step in y's units with Adam); None
        adapts it (0.015 with Adam).
    num_leapfrog_steps : int, optional
        Steps a transition; None draws them at random up to 2.8 / step_size (3 with Adam).
    n_chains : int, optional
        Parallel chains; at least 2, whose spread gives the Monte Carlo error, and an even number
        for pairs. None: from 8 for a large table up to 128 for a small one (1 with Adam).
    n_warmup : int, default=4
        Transitions at the starting values, before the first EM step.
    n_steps : int, default=1
        Transitions in every EM step.
    backend : {"auto", "numpy", "tensorflow"}, default="auto"
        What computes the chains. "numpy" has nothing to import and nothing to compile, and uses all
        cores; it is for built-in families. "tensorflow" compiles the sampler by XLA, for any family
        and for a GPU. "auto" is "numpy", but for a `CustomFamily` and for ``device="GPU:0"``;
        ``e_step="hmc"`` is ``HMC(backend="tensorflow")``, as is what ``m_step="adam"`` needs.

    References
    ----------
    Neal (2011), "MCMC using Hamiltonian dynamics", Handbook of MCMC, ch. 5.
    Shahbaba, Lan, Johnson & Neal (2014), Stat. Comput. 24, 339-349.

    Examples
    --------
    >>> from sklmm import HMC
    >>> HMC(step_size=0.015, num_leapfrog_steps=3, n_chains=1, n_warmup=1000, n_steps=5)
    HMC(n_chains=1, n_steps=5, n_warmup=1000, num_leapfrog_steps=3, step_size=0.015)
    """

    approximation = "Monte Carlo EM by Hamiltonian Monte Carlo"
    _parameter_constraints = {
        "step_size": [*_POSITIVE, None],
        "num_leapfrog_steps": [*_COUNT, None],
        "n_chains": [*_COUNT, None],
        "n_warmup": [Interval(Integral, 0, None, closed="left")],
        "n_steps": _COUNT,
        "backend": [StrOptions({"auto", "numpy", "tensorflow"})],
    }

    def __init__(
        self,
        step_size=None,
        num_leapfrog_steps=None,
        n_chains=None,
        n_warmup=4,
        n_steps=1,
        backend="auto",
    ):
        self.step_size = step_size
        self.num_leapfrog_steps = num_leapfrog_steps
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_steps = n_steps
        self.backend = backend


class NUTS(EStep):
    """Monte Carlo EM with the No-U-Turn sampler (`tfp.mcmc.NoUTurnSampler`).

    It chooses its trajectories' lengths itself, and costs more a transition than `HMC`.

    Parameters
    ----------
    step_size : float, optional
        Leapfrog step, in whitened units; None adapts it.
    max_tree_depth : int, default=6
        At most 2^max_tree_depth leapfrogs a transition.
    n_chains : int, optional
        As in `HMC`.
    n_warmup : int, default=4
        Transitions at the starting values, before the first EM step.
    n_steps : int, default=1
        Transitions in every EM step.

    References
    ----------
    Hoffman & Gelman (2014), J. Mach. Learn. Res. 15, 1593-1623.

    Examples
    --------
    >>> from sklmm import NUTS
    >>> NUTS(max_tree_depth=5)
    NUTS(max_tree_depth=5)
    """

    approximation = "Monte Carlo EM by the No-U-Turn sampler"
    _parameter_constraints = {
        "step_size": [*_POSITIVE, None],
        "max_tree_depth": _COUNT,
        "n_chains": [Interval(Integral, 2, None, closed="left"), None],
        "n_warmup": [Interval(Integral, 0, None, closed="left")],
        "n_steps": _COUNT,
    }

    def __init__(self, step_size=None, max_tree_depth=6, n_chains=None, n_warmup=4, n_steps=1):
        self.step_size = step_size
        self.max_tree_depth = max_tree_depth
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_steps = n_steps


class MStep(BaseEstimator):
    """Base class of M-steps."""


class Adam(MStep):
    """Stochastic-gradient M-step: one Adam step on -log p(y, b | theta) at one posterior draw.

    It trains the coefficients and the logarithms of the SDs from 0 and 1, in the table's own units,
    for `max_iter` iterations; there is no stopping rule.

    Parameters
    ----------
    learning_rate : float, default=0.01

    References
    ----------
    Kingma & Ba (2015), "Adam: a method for stochastic optimization", ICLR.

    Examples
    --------
    >>> from sklmm import Adam
    >>> Adam(learning_rate=0.02)
    Adam(learning_rate=0.02)
    """

    _parameter_constraints = {"learning_rate": _POSITIVE}

    def __init__(self, learning_rate=0.01):
        self.learning_rate = learning_rate
