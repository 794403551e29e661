"""A fitted model as the package marginaleffects takes one: predictions at other coefficients."""

from functools import cached_property

import numpy as np
import pandas as pd

try:
    import polars as pl
    from marginaleffects.classes import ModelAbstract, ModelVault
except ImportError as error:
    raise ImportError(
        "to_marginaleffects needs marginaleffects: pip install 'sklmm[marginaleffects]'."
    ) from error


class MarginalEffectsModel(ModelAbstract):
    """A model for `marginaleffects.predictions`, `comparisons`, `slopes` and their averages.

    Parameters
    ----------
    model : estimator
        What else is asked of it is asked of this.
    table : DataFrame
        The rows that are averaged over, where no others are given.
    predictors : list
        Its columns that the predictions vary with, but for grouping columns.
    levels : dict
        Levels of the factors among the columns.
    parameters, covariance : ndarray [k], [k, k]
        What standard errors are of.
    design : callable
        From a table to what `predict` reads.
    predict : callable
        From that and other parameters to predictions [n_rows], or [n_rows, n_groups].
    groups : list of str or None
        Names of several predictions a row.
    """

    def __init__(
        self, model, table, predictors, levels, parameters, covariance, design, predict, groups
    ):
        self._columns = {str(column): column for column in table.columns}
        self._levels = {str(column): own for column, own in levels.items()}
        self._design, self._predict, self._groups = design, predict, groups
        names, response = list(map(str, predictors)), "response"
        while response in self._columns:
            response += "_"
        rhs = " + ".join(f"`{name}`" for name in names) or "1"
        vault = ModelVault(
            coef=parameters,
            vcov=covariance,
            formula=f"{response} ~ {rhs}",
            modeldata=pl.DataFrame(
                {str(c): self._to_polars(str(c), table[c]) for c in table.columns}
            ),
            variable_names=[response, *names],
            package="sklmm",
        )
        super().__init__(model, vault)

    def get_vcov(self, vcov=True):
        """The parameters' covariance, None where standard errors are not wanted."""
        if not isinstance(vcov, bool | np.bool_):
            raise ValueError(f"vcov={vcov!r} is not available: use True, False or a matrix.")
        return self.vault.vcov if vcov else None

    def get_exog(self, newdata):
        """Rows of a polars table as `get_predict` takes them."""
        return _Rows(self._to_pandas(newdata), self._design)

    def get_predict(self, params, newdata):
        """Predictions at the parameters `params`, a polars table of rowid, estimate and group."""
        if not isinstance(newdata, _Rows):
            newdata = self.get_exog(newdata)
        found = self._predict(newdata.design, np.asarray(params, dtype=float))
        rows = np.arange(len(found), dtype=np.int32)
        if self._groups is None:
            return pl.DataFrame({"rowid": rows, "estimate": found})
        columns = {
            "rowid": np.tile(rows, len(self._groups)),
            "group": np.repeat(self._groups, len(rows)),
            "estimate": found.T.ravel(),
        }
        return pl.DataFrame(columns)

    def _to_polars(self, name, values):
        """A column for marginaleffects, to which an Enum is a factor, and a number never one."""
        if name not in self._levels and values.dtype.kind in "iufb":
            return pl.Series(name, values.to_numpy())
        values = values.to_numpy(object)
        if name not in self._levels:
            self._levels[name] = pd.Index(np.sort(pd.unique(values[pd.notna(values)])))
        levels = self._levels[name]
        texts = np.append(levels.astype(str).to_numpy(object), None)
        labels = texts[levels.get_indexer(pd.Index(values, tupleize_cols=False))]
        return pl.Series(name, labels.tolist(), dtype=pl.Enum(texts[:-1].tolist()))

    def _to_pandas(self, newdata):
        """The columns that the model has, as it had them."""
        out = {}
        for name in newdata.columns:
            if name not in self._columns:
                continue
            values = newdata[name]
            if (levels := self._levels.get(name)) is None:
                out[self._columns[name]] = values.to_numpy()
            else:
                places = pd.Index(levels.astype(str)).get_indexer(values.cast(pl.String).to_list())
                out[self._columns[name]] = pd.Categorical.from_codes(places, levels)
        return pd.DataFrame(out)


class _Rows:
    """Rows of a table, of which a slice can be taken before their design is made, once."""

    def __init__(self, table, design):
        self._table, self._make = table, design

    @property
    def shape(self):
        return self._table.shape

    def __getitem__(self, rows):
        return _Rows(self._table[rows].reset_index(drop=True), self._make)

    @cached_property
    def design(self):
        return self._make(self._table)
