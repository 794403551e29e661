"""What every backend of rows answers, beside matrices that are written out."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sklmm.design import DesignSpec, resolve_terms
from sklmm.engine.graphs import graphs
from sklmm.engine.likelihood import Likelihood
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.pairs import LocalPairs
from sklmm.engine.rows.protocol import Coefs, Pairs, Rows
from sklmm.engine.rows.standardize import standardize
from sklmm.families import NegativeBinomial

TERMS = {
    "none": [],
    "one": ["(1 + x | a)"],
    "crossed": ["a", "b"],
    "slopes": ["(1 + x | a)", "b", "(1 + s | c)"],
}


def add(one, two):
    """Sums of what two halves answer: arrays, or tuples and lists of them."""
    if isinstance(one, Coefs):
        return Coefs(*map(add, one, two))
    if isinstance(one, tuple | list):
        return type(one)(map(add, one, two))
    return one + two


class Sums:
    """Answers of two halves, added."""

    def __init__(self, parts):
        self.parts = parts

    def __getattr__(self, name):
        return lambda *args: add(*(getattr(part, name)(*args) for part in self.parts))


class HalvesOfPairs(Sums):
    @property
    def matrix(self):
        return self.parts[0].matrix + self.parts[1].matrix

    @property
    def shape(self):
        return self.parts[0].shape


class HalvesExpanded(Sums):
    def __init__(self, parts):
        super().__init__(parts)
        for name in ("value", "score", "of_raw", "score_in_raw"):
            setattr(self, name, add(*(getattr(part, name) for part in parts)))
        self.weights, self.bend = (tuple(getattr(p, n) for p in parts) for n in ("weights", "bend"))


class Halves:
    """A backend: rows in two halves of whole levels of the largest term, weights a pair."""

    columns = None

    def __init__(self, *arrays, parts=None):
        if parts is None:
            whole = LocalRows(*arrays)
            sizes = [J * z.shape[1] for J, z in zip(whole.levels, whole.z, strict=True)]
            half = np.arange(whole.n_rows) % 2 == 0
            if sizes:
                E = int(np.argmax(sizes))
                half = whole.refs[E] < whole.levels[E] // 2
            parts = [whole.take(np.flatnonzero(own)) for own in (half, ~half)]
        self.parts, self.p = parts, parts[0].p
        self.n_rows = sum(part.n_rows for part in parts)

    def _each(self, name, *args, at=None):
        pairs = zip(self.parts, (None, None) if at is None else at, strict=True)
        return [getattr(part, name)(*args, at=own) for part, own in pairs]

    def stacked(self, d):
        return self if d == 1 else Halves(parts=[part.stacked(d) for part in self.parts])

    def without_fixed(self):
        return Halves(parts=[part.without_fixed() for part in self.parts])

    def same_levels(self, k, other):
        return all(part.same_levels(k, other) for part in self.parts)

    def block_of(self, terms):
        return add(*(part.block_of(terms) for part in self.parts))

    def blocks(self, at=None):
        return add(*self._each("blocks", at=at))

    def fixed(self, at=None):
        return add(*self._each("fixed", at=at))

    def response(self, beta):
        return add(*(part.response(beta) for part in self.parts))

    def pairs(self, k, others, at=None):
        return HalvesOfPairs(self._each("pairs", k, others, at=at))

    def product(self, coefs, at=None):
        return add(*self._each("product", coefs, at=at))

    def evaluate(self, *args):
        found = [part.evaluate(*args) for part in self.parts]
        return *add(*(one[:2] for one in found)), tuple(one[2] for one in found)

    def slopes(self, *args):
        return add(*(part.slopes(*args) for part in self.parts))

    def safe(self, *args, at):
        return tuple(self._each("safe", *args, at=at))

    def expand(self, *args):
        return HalvesExpanded([part.expand(*args) for part in self.parts])

    def by_level(self, *args):
        return add(*(part.by_level(*args) for part in self.parts))

    def sample(self, most):
        return self.parts[0].sample(most)


def table(terms):
    rng = np.random.default_rng(0)
    n = 240
    X = pd.DataFrame({"a": rng.integers(25, size=n), "b": rng.integers(12, size=n)})
    X["c"], X["s"], X["x"] = rng.integers(9, size=n), rng.normal(size=n), rng.normal(size=n)
    _, design = DesignSpec.learn(X, resolve_terms(terms), ["x"], True)
    return design, rng.poisson(2.0, n) + 0.0, rng.integers(1, 4, n) + 0.0


@pytest.fixture(params=["local", "in parts", "halves"])
def backend(request, monkeypatch):
    if request.param == "in parts":
        monkeypatch.setattr("sklmm.engine.rows.pairs.PARTED", 0)
    return Halves if request.param == "halves" else LocalRows


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
    known = {"Z": Z, "A": whole, "coefs": coefs, "like": like, "likelihood": graphs(like)}
    return SimpleNamespace(rows=made[0].rows, plain=plain, **known)


def flat(coefs):
    return np.concatenate([coefs.beta, *(b.reshape(-1, b.shape[2]) for b in coefs.effects)])


def column(coefs, c):
    return Coefs(coefs.beta[:, c : c + 1], tuple(b[:, :, c : c + 1] for b in coefs.effects))


def weights_of(case):
    """Weights as the backend keeps them, and as an array of the rows in memory."""
    arguments = case.likelihood, column(case.coefs, 0), np.full((1, 1), 0.3)
    at, plain = (rows.evaluate(*arguments)[2] for rows in (case.rows, case.plain))
    at = tuple(w[:, 0] for w in at) if isinstance(at, tuple) else at[:, 0]
    return (None, case.plain.weights), (at, plain[:, 0])


def test_backends_have_the_protocols_methods(case):
    made = [(Rows, case.rows), (Pairs, LocalPairs(sparse.csr_array((2, 3)), 1))]
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
    for k in range(len(case.Z)):
        found = case.rows.by_level(case.like.log_prob, case.coefs, raw, k)
        refs = case.plain.refs[k]
        expected = [(w[:, None] * logs)[refs == j].sum(axis=0) for j in range(len(found))]
        np.testing.assert_allclose(found, expected, atol=1e-9)


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
        r = case.plain.z[E].shape[1]
        for first in range(0, case.plain.levels[E], 7):
            levels = slice(first, min(first + 7, case.plain.levels[E]))
            at = places[E][levels.start * r : levels.stop * r]
            J = len(at) // r
            own = held[np.ix_(at, at)].reshape(J, r, J, r)[np.arange(J), :, np.arange(J)]
            yield levels, own, held[np.ix_(at, remaining)]

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
    )
