"""What a fit leaves behind: plain NumPy, frozen, in the units of the table."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from sklmm._state import PlainState

#: Change of eta beyond which a parameter is no rounding's share of a direction.
MOVES = 1e-6


class Status(Enum):
    """How a fit ended; the value is a sentence for the user."""

    CONVERGED = "converged: the last step is below tol standard errors"
    CONVERGED_MC = (
        "converged: the last step and the Monte Carlo error are below tol standard errors"
    )
    SINGULAR = (
        "converged to a singular fit: a variance is 0, or a correlation +-1, at the maximum; the "
        "data do not support that random effect"
    )
    PERFECT = "perfect fit: the fixed effects alone reproduce y, so every variance is 0"
    SEPARATED = (
        "separated: a coefficient has no finite maximum likelihood estimate; a column separates "
        "the classes perfectly, or a class or count never occurs"
    )
    MAX_ITER = "not converged: stopped at max_iter"
    STOPPED = "not converged: stopped by a callback"

    @property
    def converged(self):
        """Whether the estimate can be used as one."""
        return self not in (Status.MAX_ITER, Status.STOPPED, Status.SEPARATED)


class LogLikelihood(PlainState):
    """The log-likelihood of an estimate: known, or estimated when it is first asked for.

    Parameters
    ----------
    value, error : float or None, float
        It, and its Monte Carlo standard error; None where there is none.
    estimate : callable, optional
        () -> (value, error), called once and let go of: until then it keeps what it needs in
        memory, the rows of the fit. It is not saved.
    """

    def __init__(self, value=None, error=0.0, estimate=None):
        self._known = None if estimate else (value, error)
        self._estimate = estimate

    def __call__(self):
        """(value, error).

        Raises
        ------
        AttributeError
            For a value that nobody had asked for when the model was saved.
        """
        if self._known is None:
            if self._estimate is None:
                raise AttributeError(
                    "loglik_, loglik_error_, aic_ and bic_ of this model were not known when it "
                    "was saved, and its file has no rows to compute them from: read model.loglik_ "
                    "before the model is saved, or fit it again."
                )
            self._known, self._estimate = self._estimate(), None
        return self._known

    @property
    def lost(self):
        """Whether it can no longer be told."""
        return self._known is None and self._estimate is None

    def without_rows(self):
        """The same as far as it is known, as it is saved."""
        out = LogLikelihood()
        out.__setstate__(self.__getstate__())
        return out

    def __deepcopy__(self, memo):
        # All copies of a fit share what one of them has asked for.
        return self

    def __getstate__(self):
        return {"_known": self._known, "_estimate": None}


@dataclass(frozen=True)
class EMResult(PlainState):
    """Estimates of a mixed model.

    Attributes
    ----------
    coef : ndarray [n_columns]
        Fixed effects of the dense columns, the intercept first if there is one.
    coef_cov : ndarray [n_columns, n_columns]
        Their covariance (X^T V^-1 X)^-1; nan for columns that depend on earlier ones.
    covariances : tuple of ndarray [r, r]
        One covariance matrix a block.
    natural : ndarray [m]
        SDs and correlations of each block, those that its covariance reports, and the family's
        parameters.
    family : dict
        The family's parameters by name, in their own units; ``sigma`` is the residual SD.
    effects : tuple of ndarray [n_levels, r]
        Posterior means.
    effects_cov : tuple of ndarray [n_levels, r, r]
        Each level's posterior covariance given the coefficients (lme4's condVar).
    coef_root, effects_root : ndarray [n_columns, m], tuple of ndarray [n_levels, r, m]
        Joint root of the posterior covariance of coefficients and effects: Cov = root root^T.
    natural_cov : ndarray [n_columns + m, n_columns + m]
        Covariance of the coefficients and of the m SDs, correlations and family parameters, in the
        order of `natural_names`; nan where there is none. That of the coefficients is Kenward and
        Roger's adjusted one if `dof` is by their rule, and else `coef_cov`.
    mc_error : ndarray
        Monte Carlo standard errors of the same.
    std_mc_error : ndarray
        Monte Carlo standard errors of their standard errors; 0 without draws, nan where unknown.
    effects_mc_error, effects_std_mc_error : tuple of ndarray [n_levels, r] or None
        By E-steps that draw, Monte Carlo standard errors of `effects` and of `effects_std`; None
        after an update.
    history : list of dict
        One per iteration.
    moving : int or None
        Entry of (coef, natural) that moved most in the last step of a fit that did not converge.
    trace : (ndarray [t], tuple of ndarray [t, n_levels, r]) or None
        Iterations, and one chain's effects there, where the E-step draws; None after an update.
    chains : ndarray [n_chains, n_draws, n_columns + m] or None
        By E-steps that draw, each chain's own estimates of (coef, natural) over the averaged
        iterations: theta_t and a Newton step by that chain's score. Their mean is the estimate.
    likelihood : LogLikelihood
        Of `loglik` and `loglik_error`, float or None and float: the log-likelihood (REML's
        criterion under REML), and its Monte Carlo standard error. By "hmc" and "nuts" it is
        computed when it is first asked for.
    dof : ndarray [n_columns] or None
        Degrees of freedom of the coefficients, by `dof_rule`, "satterthwaite" or "kenward-roger".
    dof_root : ndarray [m, n_columns, n_columns] or None
        R_i, a root of what is known of `coef_cov` itself: the covariance of its entries is the sum
        of vec(R_i) vec(R_i)^T. Any combination of the coefficients has degrees of freedom by it.
    undetermined : ndarray of bool [m]
        Which SDs, correlations and family parameters the design does not determine: their
        estimates are one choice of many; empty where that was not looked at.
    unsolved : float
        Largest relative residual of the last solves by conjugate gradients that ended before their
        tolerance, or 0.
    rough : float
        Share by which the last step changes the posterior's draws, where Lanczos' method ended
        before its tolerance, or 0.
    sparse_coef, sparse_std, sparse_root : ndarray [k], [k], [k, m]
        Fixed effects of the columns that are kept sparse, their standard errors and their rows of
        the joint root; empty without such columns.
    unbounded : ndarray [n_columns + m, k] or None
        Directions in (coef, natural) in which no estimate is finite: of a separated fit, and of
        parts whose parameter is at an edge of its range for some rows.
    flat : ndarray [n_columns + m, k] or None
        Directions in (coef, natural) along which the information is 0 to its rounding: of a fit by
        Laplace or quadrature, None where that was not looked at.
    indefinite : ndarray of bool [n_columns + m]
        Which of (coef, natural) have no standard error because the information is indefinite;
        empty where there was none to look at.
    log_prior : float or None
        What the priors add to the log-likelihood, None without any: their log densities at the
        estimate; of coefficients that REML integrates out, the log of their density's mean given y.
    """

    coef: np.ndarray
    coef_cov: np.ndarray
    covariances: tuple
    natural: np.ndarray
    family: dict
    effects: tuple
    effects_cov: tuple
    coef_root: np.ndarray
    effects_root: tuple
    natural_cov: np.ndarray
    mc_error: np.ndarray
    likelihood: LogLikelihood
    n_obs: float
    rank: int
    n_variance_parameters: int
    reml: bool
    history: list
    status: Status
    moving: int | None
    trace: tuple | None
    chains: np.ndarray | None = None
    dof: np.ndarray | None = None
    unsolved: float = 0.0
    rough: float = 0.0
    undetermined: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    sparse_coef: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sparse_std: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sparse_root: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    unbounded: np.ndarray | None = None
    flat: np.ndarray | None = None
    std_mc_error: np.ndarray = field(default_factory=lambda: np.zeros(0))
    effects_mc_error: tuple | None = None
    effects_std_mc_error: tuple | None = None
    indefinite: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    log_prior: float | None = None
    dof_rule: str | None = None
    dof_root: np.ndarray | None = None

    def __getstate__(self):
        return super().__getstate__() | {"status": self.status.name}

    def __setstate__(self, state):
        # Another version's may be of another kind: the estimator's warning says so.
        status = state.get("status")
        super().__setstate__(state | {"status": Status.__members__.get(status, status)})

    @property
    def loglik(self):
        """The log-likelihood, or None."""
        return self.likelihood()[0]

    @property
    def loglik_error(self):
        """Its Monte Carlo standard error."""
        return self.likelihood()[1]

    @property
    def sigma(self):
        """Residual SD, nan for families without one."""
        return self.family.get("sigma", np.nan)

    @property
    def dropped(self):
        """Coefficients of columns that depend on earlier ones and were left out, bool."""
        unknown = np.isnan(np.diag(self.coef_cov))
        if len(self.indefinite):
            unknown &= ~self.indefinite[: len(unknown)]
        return unknown

    @property
    def effects_std(self):
        """Posterior SDs given the coefficients, a tuple of [n_levels, r]."""
        return tuple(own_sds(self.effects_cov))

    @property
    def variance_se(self):
        """Standard errors of SDs, correlations and family parameters, by the delta method."""
        return np.sqrt(np.maximum(np.diag(self.natural_cov)[len(self.coef) :], 0.0))

    @property
    def n_parameters(self):
        """Number of estimated parameters, for AIC and BIC."""
        return self.rank + self.n_variance_parameters


def count(n):
    """A number of observations as text: all of its digits, which `:g` has not."""
    return f"{n:.0f}" if float(n).is_integer() else f"{n:.10g}"


def own_sds(covariances):
    """SDs [n_levels, r] of each of several arrays of covariances [n_levels, r, r]."""
    return [np.sqrt(np.maximum(V.diagonal(0, 1, 2), 0.0)) for V in covariances]


def covariance_root(covariances):
    """L with L L^T = covariance, for each of [..., r, r], singular ones included."""
    values, vectors = np.linalg.eigh(covariances)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def least_eigenvalue(covariance):
    """That of the correlations [r, r], 0 where a variance is 0."""
    sds = np.sqrt(covariance.diagonal())
    return float(np.linalg.eigvalsh(covariance / np.outer(sds, sds))[0]) if sds.all() else 0.0


def degrees_of_freedom(L, covariance, root):
    """Degrees of freedom [q] of each of the combinations L [q, p] of coefficients.

    2 v^2 / Var(v) of its variance v = l^T C l, by the covariance C [p, p] and a root [m, p, p] of
    the covariance of its entries, `EMResult.dof_root`; inf where v is known, and nan where it is 0.
    """
    variance = np.einsum("qa,ab,qb->q", L, covariance, L)
    spread = (np.einsum("iqb,qb->iq", L @ root, L) ** 2).sum(axis=0)
    known = spread > 0
    out = np.where(known, 2 * variance**2 / np.where(known, spread, 1.0), np.inf)
    return np.where(variance > 0, out, np.nan)


def at_infinity(result, matrix):
    """Which rows of `matrix` [q, n_columns + m] of (coef, natural) have no finite estimate."""
    if result.unbounded is None:
        return np.zeros(len(matrix), dtype=bool)
    return np.abs(matrix @ result.unbounded).max(axis=1) > MOVES


def natural_entries(blocks):
    """(term, "sd" or "corr", name) of each SD and correlation, in `natural`'s order.

    `blocks` are a term's name, its coefficients' names and of each value that is reported of their
    covariance its kind, its name and its bounds.
    """
    for term, _, values in blocks:
        for kind, name, *_ in values:
            yield term, kind, name


def natural_names(blocks, family=("sigma",)):
    """Names matching `natural` for such blocks."""
    names = [f"{kind}({term}, {name})" for term, kind, name in natural_entries(blocks)]
    return [*names, *family]
