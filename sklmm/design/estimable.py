"""Rows whose mean the fit does not determine, where columns of its fixed part were left out.

The columns left out are combinations X_d = X_k A of the others in the rows of the fit. A new row's
mean is the same for every coefficient vector that fits those rows if it has x_d = x_k A too (it is
estimable: Searle 1971, Linear Models, section 5.4); another row's mean is anything, as for a
combination of two factors' levels that no row had.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse

#: Share of the sizes of both sides below which their difference is rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Estimable:
    """The columns left out, a mask [p], A [n_kept, n_dropped] and the sizes of its entries."""

    dropped: np.ndarray
    combination: np.ndarray
    sizes: np.ndarray

    def check(self, X, spec, table):
        """ValueError for a factors' combination that is not estimable, and else a warning."""
        if issparse(X):
            return
        left, away = X[:, self.dropped], X[:, self.dropped] != 0
        # Columns of zeros alone need no others.
        if (some := self.sizes.any(axis=0)).any():
            kept = X[:, ~self.dropped]
            size = np.abs(left[:, some]) + np.abs(kept) @ self.sizes[:, some]
            rest = left[:, some] - kept @ self.combination[:, some]
            away[:, some] = np.abs(rest) > TOLERANCE * size
        if not away.any():
            return
        names = np.array(spec.coef_names, dtype=object)[self.dropped]
        row = int(np.argmax(away.any(axis=1)))
        if spec.formula is not None:
            of_factors = np.array([factors for _, factors in spec.formula.members])
            factors = away & of_factors[self.dropped]
            if factors.any():
                row, column = np.argwhere(factors)[0]
                self._refuse(spec.formula, int(row), names[column], table)
        shown = ", ".join(repr(str(n)) for n in names[away.any(axis=0)][:10])
        warnings.warn(
            f"The fit left out the fixed-effects column(s) {shown}, linear combinations of others "
            f"in its rows; in {int(away.any(axis=1).sum())} row(s) of X, the first row {row}, they "
            "are none: the rows of the fit do not determine the predictions there.",
            UserWarning,
            stacklevel=6,
        )

    @staticmethod
    def _refuse(formula, row, name, table):
        columns = formula.members[formula.column_names.index(name)][0]
        factors = [v.name for v in formula.variables if v.levels is not None or v.name in columns]
        cell = ", ".join(f"{c}={table[c].iloc[row : row + 1].tolist()[0]!r}" for c in factors)
        raise ValueError(
            f"fixed_effects={formula.text!r}: row {row} has {cell}, a combination that no row of "
            f"the fit tells of: the coefficient {name!r} was left out, and the prediction is not "
            "determined. Leave that term out, fit with rows that have the combination, or make it "
            f"a grouping factor, '(1 | {':'.join(columns)})', in random_effects."
        )
