"""What a Gaussian model knows of the rows of all batches so far: sums, by levels that grow."""

from dataclasses import dataclass, replace

import numpy as np

from sklmm._fitted.fingerprint import FingerprintSums
from sklmm._state import PlainState
from sklmm.design.design import Block, Design
from sklmm.design.growing import GrowingSpec
from sklmm.engine import fit as engine
from sklmm.families import Family, Response


@dataclass(frozen=True)
class Accumulated(PlainState):
    """The sums of all rows so far.

    `statistics` are the engine's; `known` are the attributes of `FittedModel` that the first batch
    tells; `parameters` is what the estimator's parameters that make the columns were.
    """

    growing: GrowingSpec
    statistics: object
    fingerprint: FingerprintSums
    n_missing: int
    known: dict
    parameters: str

    @classmethod
    def first(cls, growing, design, response, n_missing, known, parameters):
        """The sums of a first batch."""
        statistics = engine.add_rows(
            None,
            design,
            response.y,
            response.weights,
            fit_intercept=growing.spec.fit_intercept,
            precision=response.family.weights == "precision",
        )
        fingerprint = FingerprintSums.of(design, response)
        return cls(growing, statistics, fingerprint, n_missing, known, parameters)

    def with_rows(self, table, response, n_missing):
        """The sums of these rows and those of a batch."""
        growing, design, places = self.growing.with_rows(table)
        statistics = engine.add_rows(
            self.statistics,
            design,
            response.y,
            response.weights,
            fit_intercept=growing.spec.fit_intercept,
            precision=response.family.weights == "precision",
            places=places,
        )
        return replace(
            self,
            growing=growing,
            statistics=statistics,
            fingerprint=FingerprintSums.of(design, response, self.fingerprint, places),
            n_missing=self.n_missing + n_missing,
        )

    def without(self, n_missing):
        """The same, with so many more rows left out, of batches in which none counts."""
        return replace(self, n_missing=self.n_missing + n_missing)

    @property
    def mean_weight(self):
        """Mean of the weights as they were given."""
        statistics = self.statistics
        return statistics.weight * statistics.units.weight / statistics.n_rows

    def response(self, family: Family):
        """A `Response` of no rows with the constants of these."""
        none, known = np.zeros(0), {}
        if family.weights == "precision":
            statistics = self.statistics
            mean = statistics.weight / statistics.n_rows
            constant = 0.5 * (statistics.log_weights - statistics.n_rows * np.log(mean))
            known = {"log_constant": constant, "sigma_unit": float(np.sqrt(self.mean_weight))}
        return Response(family, none, none, **known)

    def design(self, spec):
        """A `Design` of no rows by a spec with all levels."""
        blocks = []
        for term in spec.terms:
            effect, r = term.effect, len(term.cnames)
            z = np.zeros((0, r)) if effect.slopes else None
            blocks.append(Block(np.zeros(0, np.int32), z, len(term.levels), effect.covariance))
        return Design(np.zeros((0, len(spec.coef_names))), tuple(blocks))

    @property
    def noise(self):
        """Mean residual variance of the rows, in units of sigma^2: 1 but for precisions."""
        statistics = self.statistics
        if statistics.plain is None:
            return 1.0
        return statistics.inverse_weights / (statistics.units.weight * statistics.n_rows)

    def marked(self, family):
        """The `Fingerprint` of the rows."""
        return self.fingerprint.fingerprint(
            self.mean_weight if family.weights == "precision" else None
        )
