"""Models whose rows stay on the workers and are passed over again and again."""


def fit_rows(model, cluster, collections, watch):
    """Set the fitted state of a Dask estimator; the warnings of the fit are returned.

    `cluster` is a `Session`, `collections` are (X, y, weights), and `watch` is None, or leads from
    what makes fitted attributes to what the engine calls at each iteration.
    """
    raise ValueError(
        f"family={model.family!r}, e_step={model.e_step!r}, m_step={model.m_step!r}: collections "
        "are fitted by family='gaussian' with e_step 'auto', 'exact' or 'cg' and m_step='auto'."
    )
