"""Mixed-effects models of Dask collections, fitted where their partitions are.

`DaskMixedEffectsRegressor` and `DaskMixedEffectsClassifier` have the parameters and attributes of
the estimators of one machine, and take Dask DataFrames and arrays. Needs the extra:
``pip install "sklmm[dask]"``.
"""

try:
    import dask.dataframe  # noqa: F401
    import distributed  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'sklmm.dask needs Dask, its DataFrames and pyarrow: pip install "sklmm[dask]" ({error}).'
    ) from error
from sklmm.dask.estimators import DaskMixedEffectsClassifier, DaskMixedEffectsRegressor

__all__ = ["DaskMixedEffectsClassifier", "DaskMixedEffectsRegressor"]
