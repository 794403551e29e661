"""A fitted model as its predictions, tables, displays and comparisons read it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from sklmm._fitted.fingerprint import Fingerprint
from sklmm._fitted.measures import Spread
from sklmm._fitted.tables import Labels, reported
from sklmm._state import PlainState
from sklmm.design.design import DesignSpec
from sklmm.families import Family
from sklmm.families.parts import parameters_by_row
from sklmm.steps import EStep


@dataclass(frozen=True)
class FittedModel(PlainState):
    """What an estimator keeps of a fit beside the estimates, an `EMResult`."""

    spec: DesignSpec
    labels: Labels
    #: As `e_step` no object that is the estimator's parameter, which may be changed.
    family: Family
    #: In the order of the model's codes, or None.
    classes: np.ndarray | None
    n_predictors: int
    spread: Spread | None
    fingerprint: Fingerprint
    response_name: str
    #: Whether the table was a DataFrame, or was made one.
    from_frame: bool
    #: Whether new tables are read by the names of the columns that the model uses.
    by_name: bool
    #: Rows with missing values that were left out.
    n_missing: int
    #: The one that ran.
    e_step: EStep
    #: The `ParameterModel`s of the model's other parts.
    models: tuple = ()

    @classmethod
    def of(cls, spec, design, response, result, **known):
        """The model of a fit; `known` are `family` and the attributes from `response_name` on."""
        return cls(
            spec=spec,
            labels=Labels.of(spec, design.every_block, response),
            classes=response.classes,
            n_predictors=response.n_predictors,
            spread=Spread.of(design, response, result),
            fingerprint=Fingerprint.of(design, response),
            models=response.models,
            **known,
        )

    @property
    def approximation(self):
        """How the E-step approximates the likelihood, None where it does not."""
        return self.e_step.approximation if self.spec.every_term else None

    @property
    def n_means(self):
        """Linear predictors of the mean: of unordered classes all, and of others the first."""
        return self.n_predictors if self.family.classes == "unordered" else 1

    def term_blocks(self):
        """Each term with the numbers of its blocks, one a predictor, and coefficients' names."""
        # Terms of other parts are in one predictor.
        d = 1 if len(self.spec.every_term) > len(self.spec.terms) else self.n_predictors
        for first, term in enumerate(self.spec.every_term):
            mine = range(first * d, (first + 1) * d)
            yield term, mine, [name for k in mine for name in self.labels.blocks[k][1]]

    def by_term(self, arrays):
        """A table of levels by coefficients for each term from arrays [n_levels, r] a block."""
        return {
            term.name: pd.DataFrame(
                np.concatenate([arrays[k] for k in mine], axis=1), index=term.levels, columns=names
            )
            for term, mine, names in self.term_blocks()
        }

    def covariances(self, result):
        """The covariance matrix of each term's coefficients, a table."""
        return {
            term.name: pd.DataFrame(
                block_diag(*[result.covariances[k] for k in mine]), index=names, columns=names
            )
            for term, mine, names in self.term_blocks()
        }

    def part_names(self, component):
        """Names of the coefficients of another part of the model, by which they are reported."""
        names = [name for own in self.models if own.component == component for name in own.names]
        return names or self.labels.parts.get(component, [])

    def parameters(self, result, design):
        """The family's parameters by name, arrays [n_rows, 1] of those that have a model."""
        if not self.models:
            return result.family
        return parameters_by_row(self.models, result.family, design.models)

    def estimates(self, result):
        """Estimates and standard errors of all parameters, each a Series."""
        return reported(self.labels, result)[:2]

    def coefficients(self, result):
        """(intercepts [d], coefficients [d, n_fixed]) in the table's order of columns.

        Of classes there are d, else those of the mean.
        """
        first, shape = int(self.spec.fit_intercept), (self.n_means, len(self.spec.coef_names))
        coef = result.coef[: np.prod(shape)].reshape(shape)
        intercept = coef[:, 0].copy() if first else np.zeros(len(coef))
        if self.spec.sparse:
            coef = np.concatenate([result.coef, result.sparse_coef])[None, self.spec.order]
        return intercept, coef[:, first:].copy()
