"""What the design leaves undetermined, beside the rank of the derivatives of V written out."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm._fitted.tables import block_labels
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.posterior.assemble import undetermined
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.standardize import stacked, standardize
from sklmm.engine.theta.space import Space
from sklmm.result import natural_names

G = np.repeat(np.arange(8), 3)
COLUMNS = {
    "one": np.ones(24),
    "zero": np.zeros(24),
    "sign": np.where(G % 2, 1.0, -1.0),
    "half": G % 2 * 1.0,
    "level": np.cos(G) + 5.0,
    "row": np.arange(24.0) % 5,
    "twice": 2.0 * (np.arange(24) % 5),
    "row_id": np.arange(24),
    "h": np.arange(24) % 4,
    "again": np.array(list("hgfedcba"))[G],
}


def by_rank(design, blocks, residual):
    """Names of what moves along a null vector of the D_i in the table's own units."""
    names = natural_names(blocks)
    derivatives, entries = [], []
    for k, b in enumerate(design.blocks):
        z = np.ones((24, 1)) if b.z is None else b.z
        Z = [np.eye(b.n_levels)[b.refs] * column[:, None] for column in z.T]
        for i, j in b.covariance.reported:
            derivatives.append((Z[i] @ Z[j].T + Z[j] @ Z[i].T).ravel())
            entries.append((k, i, j))
    if residual:
        derivatives.append(np.eye(24).ravel())
        entries.append(("sigma", 0, 0))
    D = np.stack(derivatives, axis=1)
    D = D / np.maximum(np.linalg.norm(D, axis=0), 1e-300)
    _, values, vectors = np.linalg.svd(D)
    rank = int((values > 1e-7 * values[0]).sum())
    moves = {
        e for e, v in zip(entries, vectors[rank:].T, strict=True) if np.abs(v).max(initial=0) > 1e-6
    }
    out = []
    for k, ((term, cnames, _), block) in enumerate(zip(blocks, design.blocks, strict=True)):
        out += [f"sd({term}, {c})" for i, c in enumerate(cnames) if (k, i, i) in moves]
        out += [
            f"corr({term}, {cnames[j]}, {cnames[i]})"
            for i, j in block.covariance.reported
            if i != j and {(k, i, j), (k, i, i), (k, j, j)} & moves
        ]
    assert set(out) <= set(names)
    return out + ["sigma"] * (("sigma", 0, 0) in moves)


@pytest.mark.parametrize(
    ("terms", "n_undetermined"),
    [
        (["(1 + row | G)"], 0),
        (["(1 + level | G)"], 0),
        (["(1 + level || G)"], 0),
        (["(1 + half || G)"], 0),
        (["(1 + half | G)"], 2),
        (["(1 + sign | G)"], 3),
        (["(1 + sign || G)"], 2),
        (["(1 + one || G)"], 2),
        (["(1 + zero | G)"], 2),
        (["(1 + zero || G)"], 1),
        (["(1 + row + twice | G)"], 5),
        (["(1 + row | G)", "(1 | h)"], 0),
        (["(1 + row | G)", "again"], 3),
        (["row_id"], 2),
    ],
)
def test_what_is_undetermined_is_the_null_space_of_the_derivatives(terms, n_undetermined):
    table = pd.DataFrame({"G": G, **COLUMNS})
    spec, design = DesignSpec.learn(table, resolve_terms(terms), [], True)
    y = np.random.default_rng(0).normal(size=24)
    problem = standardize(design, y, np.ones(24), fit_intercept=True, reml=True)
    blocks = block_labels(spec.terms, [b.covariance for b in design.blocks])
    *found, sigma = undetermined(Space.gaussian(problem))
    names = [n for n, out in zip(natural_names(blocks, ()), found, strict=True) if out]
    names += ["sigma"] * int(sigma)
    # Three linear predictors a row, of which no two share one: what holds of one, three times.
    own = undetermined(Space(problem, {}))
    sizes = [len(b.covariance.reported) for b in problem.blocks]
    parts = np.split(own, np.cumsum(sizes)[:-1])
    three = undetermined(Space(stacked(problem, 3), {}))
    np.testing.assert_array_equal(three, np.concatenate([p for p in parts for _ in range(3)]))
    assert sorted(names) == sorted(by_rank(design, blocks, residual=True))
    assert len(names) == n_undetermined


def test_blocks_that_share_no_row_are_not_crossed(monkeypatch):
    """Of one term and many classes."""
    table = pd.DataFrame({"G": G})
    _, design = DesignSpec.learn(table, resolve_terms(["G"]), [], True)
    y = np.random.default_rng(0).normal(size=24)
    problem = standardize(design, y, np.ones(24), fit_intercept=True, reml=False)
    space = Space(stacked(problem, 9), {})
    monkeypatch.setattr(LocalRows, "same_levels", None)
    np.testing.assert_array_equal(undetermined(space), np.zeros(9, bool))


@pytest.mark.parametrize(("e_step", "family"), [("exact", "gaussian"), ("laplace", "poisson")])
def test_an_undetermined_sd_is_named_and_has_no_standard_error(e_step, family):
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"g": np.repeat(np.arange(20), 5), "x": np.repeat(np.tile([-1, 1], 10), 5)})
    y = rng.normal(0, 1, 20)[X["g"]] + rng.normal(0, 1, 100)
    y = y if family == "gaussian" else rng.poisson(np.exp(y))
    model = MixedEffectsRegressor(["(1 + x || g)"], fixed_effects=[], family=family, e_step=e_step)
    with pytest.warns(
        UserWarning, match=r"not identify 'sd\(g, Intercept\)', 'sd\(g, x\)'.*Remove"
    ):
        model.fit(X, y)
    assert model.converged_
    names = ["sd(g, Intercept)", "sd(g, x)"]
    assert model.variance_components_["std_error"].iloc[:2].isna().all()
    wald = model.conf_int()
    assert wald.loc[names].isna().all(axis=None)
    assert wald.drop(index=names).notna().all(axis=None)
    if e_step == "exact":
        rows = {"X": X, "y": y}
        drawn = model.conf_int(method="bootstrap", n_resamples=4, random_state=0, **rows)
        assert drawn.loc[names].isna().all(axis=None)
        # Only the sum of the two variances is known, and bounds each of them.
        profile = model.conf_int(method="profile", **rows).loc[names]
        alone = MixedEffectsRegressor(["g"], fixed_effects=[]).fit(X, y)
        alone = alone.conf_int(method="profile", **rows).loc["sd(g, Intercept)", "upper"]
        np.testing.assert_allclose(profile, [[0.0, alone]] * 2, rtol=0.02)
