"""What every backend of rows answers, beside matrices that are written out."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sklmm import HMC, ConjugateGradient, Exact, Gaussian, Laplace
from sklmm.design.design import DesignSpec
from sklmm.design.indicators import Indicators
from sklmm.design.terms import resolve_terms
from sklmm.engine.fit import Settings, run
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.engine.limits import FACTORISED
from sklmm.engine.linalg.blocks import LocalPairs
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs, Pairs, Rows
from sklmm.engine.rows.standardize import standardize
from sklmm.families import NegativeBinomial, Poisson
from tests.engine.rows.halves import Halves
from tests.engine.rows.parts import parts

TERMS = {
    "none": [],
    "one": ["(1 + x | a)"],
    "crossed": ["a", "b"],
    "slopes": ["(1 + x | a)", "b", "(1 + s | c)"],
    "indicators": ["(0 + f0 + f1 + f2 | a)", "(1 + s | c)", "(0 + f0 + f1 + f2 | b)"],
}


def table(terms):
    rng = np.random.default_rng(0)
    n = 240
    X = pd.DataFrame({"a": rng.integers(25, size=n), "b": rng.integers(12, size=n)})
    X["c"], X["s"], X["x"] = rng.integers(9, size=n), rng.normal(size=n), rng.normal(size=n)
    places = rng.integers(3, size=n)
    X = X.assign(**{f"f{a}": (places == a) * 1.0 for a in range(3)})
    _, design = DesignSpec.learn(X, resolve_terms(terms), ["x"], True)
    # What is one column of each row is told so.
    blocks = [
        replace(block, z=Indicators(places, 3)) if block.r == 3 else block
        for block in design.blocks
    ]
    design = replace(design, blocks=tuple(blocks))
    return design, rng.poisson(2.0, n) + 0.0, rng.integers(1, 4, n) + 0.0


@pytest.fixture(params=["local", "in parts", "halves", "shards"])
def backend(request, monkeypatch):
    if request.param == "in parts":
        monkeypatch.setattr("sklmm.engine.linalg.blocks.PARTED", 0)
        monkeypatch.setattr("sklmm.engine.rows.cross_products.BLOCK", 1)
        monkeypatch.setattr("sklmm.engine.rows.cross_products.FRAGMENT", 50)
    return {"halves": Halves, "shards": parts}.get(request.param, LocalRows)


@pytest.fixture(params=TERMS)
def case(request, backend, dense_model):
    """A backend's rows, the same in memory, X, every term's Z, and a model with its functions."""
    design, y, weights = table(TERMS[request.param])
    made = [
        standardize(design, y, weights, fit_intercept=True, reml=True, scale_y=False, rows=rows)
        for rows in (backend, LocalRows)
    ]
    plain = made[1].rows
    Z = [
        dense_model.loadings(refs, z, J)
        for refs, z, J in zip(plain.refs, plain.z, plain.levels, strict=True)
    ]
    like = Likelihood.of(NegativeBinomial(), 1)
    rng = np.random.default_rng(1)
    shapes = [(J, z.shape[1]) for J, z in zip(plain.levels, plain.z, strict=True)]
    coefs = Coefs(
        rng.normal(size=(plain.p, 2)) / 5, tuple(rng.normal(size=(*s, 2)) / 5 for s in shapes)
    )
    whole = np.column_stack([plain.X, *Z])
    known = {"Z": Z, "A": whole, "coefs": coefs, "like": like, "likelihood": evaluation(like)}
    return SimpleNamespace(rows=made[0].rows, plain=plain, **known)


def flat(coefs):
    return np.concatenate([coefs.beta, *(b.reshape(-1, b.shape[2]) for b in coefs.effects)])


def column(coefs, c):
    return Coefs(coefs.beta[:, c : c + 1], tuple(b[:, :, c : c + 1] for b in coefs.effects))


def weights_of(case):
    """Weights as the backend keeps them, and as an array of the rows in memory."""
    arguments = case.likelihood, column(case.coefs, 0), np.full((1, 1), 0.3)
    at, plain = (rows.evaluate(*arguments)[2] for rows in (case.rows, case.plain))
    return (None, case.plain.weights), (at, plain)


def test_backends_have_the_protocols_methods(case):
    made = [(Rows, case.rows), (Pairs, LocalPairs([sparse.csr_array((2, 3))], 1))]
    for protocol, ours in made:
        names = [n for n in [*vars(protocol), *protocol.__annotations__] if n[0] != "_"]
        assert [n for n in names if not hasattr(ours, n)] == []


def test_cross_products_at_any_weights(case):
    X, y = case.plain.X, case.plain.y
    for at, w in weights_of(case):
        blocks = case.rows.blocks(at)
        xx, xy, zx = case.rows.fixed(at)
        np.testing.assert_allclose(xx, (X.T * w) @ X, atol=1e-9)
        np.testing.assert_allclose(xy, X.T @ (w * y), atol=1e-9)
        for Z, G, F in zip(case.Z, blocks, zx, strict=True):
            J, r = G.shape[:2]
            full = ((Z.T * w) @ Z).reshape(J, r, J, r)
            np.testing.assert_allclose(G, full[np.arange(J), :, np.arange(J)], atol=1e-9)
            np.testing.assert_allclose(F.reshape(J * r, -1), (Z.T * w) @ X, atol=1e-9)
    beta = np.arange(1.0, case.plain.p + 1)
    yy, xy, zy = case.rows.response(beta)
    rest, w = y - X @ beta, case.plain.weights
    assert yy == pytest.approx(w @ rest**2)
    np.testing.assert_allclose(xy, X.T @ (w * rest), atol=1e-9)
    for Z, found in zip(case.Z, zy, strict=True):
        np.testing.assert_allclose(found.ravel(), Z.T @ (w * rest), atol=1e-9)


def test_pairs_at_any_weights(case):
    rng = np.random.default_rng(2)
    sizes = [Z.shape[1] for Z in case.Z]
    if len(sizes) < 2:
        return
    E = int(np.argmax(sizes))
    rest = [k for k in range(len(sizes)) if k != E]
    r = case.plain.z[E].shape[1]
    J = sizes[E] // r
    blocks = rng.normal(size=(J, r, r))
    blocks = blocks + blocks.transpose(0, 2, 1)
    whole = np.zeros((J, r, J, r))
    whole[np.arange(J), :, np.arange(J)] = blocks
    for at, w in weights_of(case):
        pairs = case.rows.pairs(E, rest, at)
        C = (case.Z[E].T * w) @ np.column_stack([case.Z[k] for k in rest])
        assert pairs.shape == C.shape
        np.testing.assert_allclose(pairs.matrix.toarray(), C, atol=1e-9)
        e, f = rng.normal(size=(len(C), 2)), rng.normal(size=(C.shape[1], 2))
        np.testing.assert_allclose(pairs.down(f), C @ f, atol=1e-9)
        np.testing.assert_allclose(pairs.up(e), C.T @ e, atol=1e-9)
        inner = C.T @ whole.reshape(len(C), -1) @ C
        np.testing.assert_allclose(pairs.around(blocks, f), inner @ f, atol=1e-8)
        down, up = pairs.squares(e, f)
        np.testing.assert_allclose(down, C**2 @ f, atol=1e-9)
        np.testing.assert_allclose(up, (C**2).T @ e, atol=1e-9)
        first = 0
        for k in rest:
            q, place = case.plain.z[k].shape[1], slice(first, first + sizes[k])
            own = inner[place, place].reshape(sizes[k] // q, q, -1, q)
            levels = np.arange(len(own))
            found = pairs.own(blocks, place, q)
            np.testing.assert_allclose(found, own[levels, :, levels], atol=1e-8)
            first = place.stop


def test_products_at_any_weights(case):
    for at, w in weights_of(case):
        np.testing.assert_allclose(case.rows.gram(at), (case.A.T * w) @ case.A, atol=1e-9)
        found = flat(case.rows.product(case.coefs, at))
        np.testing.assert_allclose(found, (case.A.T * w) @ case.A @ flat(case.coefs), atol=1e-9)


def test_densities_and_their_scores(case):
    """Beside those of the rows' own linear predictors."""
    raw = np.array([[0.3, -0.2]])
    y, w, eta = case.plain.y, case.plain.weights, case.A @ flat(case.coefs)
    logs, score, _ = case.likelihood.by_row(y, eta, raw)
    value, found, _ = case.rows.evaluate(case.likelihood, case.coefs, raw)
    np.testing.assert_allclose(value, w @ logs)
    np.testing.assert_allclose(flat(found), case.A.T @ (w[:, None] * score), atol=1e-9)
    _, _, in_raw = case.likelihood.slopes(y, w, eta, raw)
    value, found, of_raw = case.rows.slopes(case.likelihood, case.coefs, raw)
    np.testing.assert_allclose(value, w @ logs)
    np.testing.assert_allclose(flat(found), case.A.T @ (w[:, None] * score), atol=1e-9)
    np.testing.assert_allclose(of_raw, in_raw)


def _single(part):
    if isinstance(part, tuple):
        return tuple(map(_single, part))
    return part.astype(np.float32)


@pytest.mark.parametrize("held", [True, False])
def test_what_densities_have_beyond_second_order(case, held):
    """Beside the rows' own; the Laplacian by second differences along random directions."""
    rng, raw, tau = np.random.default_rng(4), np.array([0.3]), 0.4
    (_, w), (at, plain_at) = weights_of(case)
    point, away = column(case.coefs, 0), column(case.coefs, 1)
    first = case.plain.p if held else 0
    A = case.A[:, first:]
    found = case.rows.remainder(case.likelihood, point, raw, at, exact=True, held=held)
    shift = flat(away)[first:]
    away = away._replace(beta=away.beta[first:])
    y, eta = case.plain.y, case.A @ flat(point)
    logs, slope, _ = case.likelihood.by_row(y, eta, raw[:, None])

    def parts(d):
        """The quadratic and the rest of the rows' densities at a deviation d of the coefs."""
        a = A @ d
        linear = (w * slope[:, 0])[:, None]
        quadratic = (w[:, None] * logs + a * (linear - 0.5 * plain_at[:, None] * a)).sum()
        value, score, _ = case.likelihood.by_row(y, eta + a, raw[:, None])
        tempered = tau * w[:, None] * score + (1 - tau) * (linear - plain_at[:, None] * a)
        return quadratic, (w @ value).sum() - quadratic, A.T @ tempered

    shapes = [(J, z.shape[1]) for J, z in zip(case.plain.levels, case.plain.z, strict=True)]
    roots = [rng.normal(size=(*s, s[1])) / 5 for s in shapes]
    columns = rng.normal(size=(A.shape[1], 2)) / 5
    effects, begin = [], case.plain.p - first
    for J, r in shapes:
        effects.append(columns[begin : begin + J * r].reshape(J, r, 2))
        begin += J * r
    blocks = [R @ R.transpose(0, 2, 1) for R in roots]
    found.spread(blocks, Coefs(columns[: case.plain.p - first], tuple(effects)))
    quadratic, rest, both, laplacian = found.split(away)
    expected = parts(shift)
    np.testing.assert_allclose([quadratic[0], rest[0]], expected[:2], rtol=1e-9, atol=1e-9)
    assert quadratic.shape == rest.shape == laplacian.shape == (1,)
    both, pulled = flat(both), flat(found.pull(away, tau))
    np.testing.assert_allclose(both @ [[1.0], [tau]], expected[2], atol=1e-9)
    np.testing.assert_allclose(pulled, expected[2], atol=1e-9)
    rounded = found.split(Coefs(*(_single(part) for part in away)))
    for value, right in zip(rounded, (quadratic, rest, None, laplacian), strict=True):
        if right is not None:
            assert value.dtype == float
            np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-4)
    assert rounded[2].beta.dtype == np.float32
    np.testing.assert_allclose(flat(rounded[2]), both, rtol=1e-4, atol=1e-3)
    h, second = 1e-3, 0.0
    ways, begin = list(columns.T), case.plain.p - first
    for R in roots:
        for j, c in np.ndindex(R.shape[0], R.shape[2]):
            way = np.zeros(A.shape[1])
            way[begin + j * R.shape[1] :][: R.shape[1]] = R[j, :, c]
            ways.append(way)
        begin += R.shape[0] * R.shape[1]
    for way in ways:
        up, down = (parts(shift + s * h * way[:, None])[1] for s in (1, -1))
        second += (up - 2 * rest[0] + down) / h**2
    assert laplacian[0] == pytest.approx(second, rel=1e-3, abs=1e-3)


def test_the_information_along_directions(case):
    """Less the second differences of the sum of w log f, and in a few rows at once."""
    rng, raw, h = np.random.default_rng(3), np.array([[0.3, -0.2]]), 1e-3

    def directions(count):
        shapes = [(J, z.shape[1]) for J, z in zip(case.plain.levels, case.plain.z, strict=True)]
        effects = tuple(rng.normal(size=(*s, count)) / 5 for s in shapes)
        return Coefs(rng.normal(size=(case.plain.p, count)) / 5, effects)

    own, shared = directions(4), directions(2)
    found = case.rows.information(case.likelihood, case.coefs, raw, own, shared)
    for c in range(2):
        way = [column(own, c), column(own, 2 + c), column(shared, 0), column(shared, 1)]
        way = np.column_stack([*map(flat, way)])
        way = np.vstack([way, [0.0, 0.0, 0.0, 1.0]])
        here = np.append(flat(case.coefs)[:, c], raw[0, c])

        def value(at):
            y, w, eta = case.plain.y, case.plain.weights, case.A @ at[:-1, None]
            return float(w @ case.likelihood.by_row(y, eta, at[-1:, None])[0][:, 0])

        for mix in (*np.eye(4), *rng.normal(size=(4, 4))):
            step = h * way @ mix
            fall = (2 * value(here) - value(here + step) - value(here - step)) / h**2
            assert mix @ found[:, :, c] @ mix == pytest.approx(fall, rel=1e-4, abs=1e-3)


def test_an_expansion_has_the_slopes_of_log_determinants(case):
    """-log |A^T w(eta, raw) A + I| / 2, by differences."""
    A, raw = case.A, np.array([0.3])
    coefs = column(case.coefs, 0)
    expansion = case.rows.expand(case.likelihood, coefs, raw, False)
    eta, y, w = A @ flat(coefs), case.plain.y, case.plain.weights

    def weights(eta, raw):
        return w * case.likelihood.by_row(y, eta, raw[:, None])[2][:, 0]

    def term(eta, raw):
        return -0.5 * np.linalg.slogdet((A.T * weights(eta, raw)) @ A + np.eye(A.shape[1]))[1]

    inverse = np.linalg.inv((A.T * weights(eta, raw)) @ A + np.eye(A.shape[1]))
    in_eta, in_raw = expansion.leverage(inverse_of(case, inverse))
    away = 1e-4 * A.T[:, :, None]
    slope = [(term(eta + h, raw) - term(eta - h, raw)) / 2e-4 for h in away]
    np.testing.assert_allclose(flat(in_eta)[:, 0], slope, rtol=1e-5, atol=1e-5)
    differences = (term(eta, raw + 1e-4) - term(eta, raw - 1e-4)) / 2e-4
    np.testing.assert_allclose(in_raw, differences, rtol=1e-5)
    score = case.rows.slopes(case.likelihood, coefs, raw[:, None])
    np.testing.assert_allclose(flat(expansion.score), flat(score[1]), atol=1e-9)


def inverse_of(case, M):
    """An `Inverse` of a dense M, the largest term eliminated."""
    p, sizes = case.plain.p, [Z.shape[1] for Z in case.Z]
    follow, held = -M[p:, :p] @ np.linalg.inv(M[:p, :p]), M[p:, p:]
    held = held - M[p:, :p] @ np.linalg.solve(M[:p, :p], M[:p, p:])
    places = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    E = int(np.argmax(sizes)) if sizes else None
    rest = [k for k in range(len(sizes)) if k != E]
    firsts = np.cumsum([0, *(sizes[k] for k in rest)])
    remaining = np.concatenate([np.zeros(0, int), *(places[k] for k in rest)])

    def slabs():
        J = case.plain.levels[E]
        return [slice(first, min(first + 7, J)) for first in range(0, J, 7)]

    def slab(levels):
        r = case.plain.z[E].shape[1]
        at = places[E][levels.start * r : levels.stop * r]
        J = len(at) // r
        own = held[np.ix_(at, at)].reshape(J, r, J, r)[np.arange(J), :, np.arange(J)]
        return own, np.tile(np.eye(r), (J, 1, 1)), held[np.ix_(at, remaining)]

    return SimpleNamespace(
        fixed=M[:p, :p],
        follow=[
            follow[place].reshape(J, -1, p)
            for place, J in zip(places, case.plain.levels, strict=True)
        ],
        eliminated=E,
        rest=list(zip(rest, firsts, strict=False)),
        remaining=held[np.ix_(remaining, remaining)],
        slabs=slabs,
        slab=slab,
    )


def test_tensors_have_the_products_of_rows(case):
    tensors = pytest.importorskip("sklmm.engine.rows.tensors")
    data = tensors.tensors(case.plain, case.plain.p)
    rows = tensors.to_rows(data, case.coefs.beta, case.coefs.effects)
    beta, effects = tensors.from_rows(data, rows * data.w[:, None], case.plain.levels)
    found = Coefs(np.asarray(beta), tuple(map(np.asarray, effects)))
    np.testing.assert_allclose(flat(found), flat(case.plain.product(case.coefs)), atol=1e-9)


@pytest.mark.parametrize(
    ("family", "e_step"),
    [(Gaussian(), Exact()), (Gaussian(), ConjugateGradient()), (NegativeBinomial(), Laplace())],
    ids=["exact", "cg", "laplace"],
)
@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("backend", [Halves, parts])
def test_a_backend_in_parts_has_the_same_fit(terms, family, e_step, backend):
    design, y, weights = table(terms)
    response = family.bind(y, weights)
    settings = [
        Settings(True, family.closed_form, e_step, tol=1e-8, rows=rows)
        for rows in (LocalRows, backend)
    ]
    whole, other = (run(design, response, own) for own in settings)
    np.testing.assert_allclose(other.coef, whole.coef, rtol=1e-6)
    np.testing.assert_allclose(other.natural, whole.natural, rtol=1e-4, atol=1e-6)
    assert other.loglik == pytest.approx(whole.loglik, rel=1e-8)


@pytest.mark.parametrize("backend", [Halves, parts])
def test_a_backend_in_parts_has_the_same_fit_of_a_large_table(backend, monkeypatch):
    """With the largest term eliminated."""
    monkeypatch.setattr("sklmm.engine.limits.SMALL_ROWS", 0)
    fit = test_a_backend_in_parts_has_the_same_fit
    fit(TERMS["slopes"], NegativeBinomial(), Laplace(), backend)


@pytest.mark.parametrize("backend", [Halves, parts])
def test_a_backend_in_parts_has_the_same_fit_by_draws(backend, monkeypatch):
    """Without a factor: by conjugate gradients, and draws of the inverse."""
    monkeypatch.setattr("sklmm.engine.limits.SMALL_ROWS", 0)
    for purpose in ("solves", "gradient", "log_det"):
        monkeypatch.setitem(FACTORISED, purpose, (0, np.inf))
    fit = test_a_backend_in_parts_has_the_same_fit
    fit(TERMS["slopes"], NegativeBinomial(), Laplace(), backend)


@pytest.mark.parametrize("terms", [TERMS["one"], TERMS["crossed"]], ids=["one", "crossed"])
def test_shards_are_sampled_by_the_same_chains(terms, monkeypatch):
    monkeypatch.setattr("sklmm.engine.limits.SMALL_ROWS", 0)
    design, y, weights = table(terms)
    response, e_step = Poisson().bind(y, weights), HMC(backend="numpy")
    settings = [Settings(True, False, e_step, tol=0.1, rows=rows) for rows in (LocalRows, parts)]
    whole, other = (run(design, response, own) for own in settings)
    # Rounding of float32 makes other chains in the end, of the same posterior.
    np.testing.assert_allclose(other.coef, whole.coef, atol=0.2 * np.sqrt(whole.coef_cov.max()))
    np.testing.assert_allclose(other.loglik, whole.loglik, atol=6 * whole.loglik_error + 0.1)


def test_a_sample_of_shards_is_that_of_the_table_in_order():
    design, y, weights = table(TERMS["slopes"])
    known = {"fit_intercept": True, "reml": True, "scale_y": False}
    whole, other = (
        standardize(design, y, weights, **known, rows=rows).rows.ordered()
        for rows in (LocalRows, parts)
    )
    for most in (1000, 50):
        one, two = whole.sample(most), other.sample(most)
        np.testing.assert_array_equal(one.y, two.y)
        np.testing.assert_array_equal(one.X, two.X)
        for own, same in zip(one.refs, two.refs, strict=True):
            np.testing.assert_array_equal(own, same)


def test_two_terms_of_one_partition_are_told_by_all_shards():
    rng = np.random.default_rng(0)
    one, n = rng.integers(20, size=300), 300
    same, split = rng.permutation(20)[one], np.where(np.arange(n) < 100, one, (one + 1) % 20)
    arrays = np.zeros(n), np.zeros((n, 0)), np.ones(n)
    z = (np.ones((n, 1)),) * 3
    rows = parts(*arrays, (one, same, split), (20,) * 3, z)
    assert rows.same_levels(0, 1)
    # One partition in each shard, and not of all rows.
    assert not rows.same_levels(0, 2)
