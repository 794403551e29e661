"""What steps need of a response family: hashable by value, so that equal ones share compilations.

Layout [rows, draws]. y is [n], or [n, m] where rows have data of their own or parameters by row
(`engine.likelihood.parameters`); eta [n * d, C] with the d predictors of a row adjacent; raw
[m, C], [m, 1] or [m] holds the estimated parameters, unconstrained. The methods are TensorFlow's,
which is imported for them (`engine.likelihood.tensors`); `evaluation` has the same in NumPy, row by
row, for arrays of any number of rows and columns: a built-in family's own density, or a custom
family's graphs of TensorFlow, traced once: that takes a tenth of a second, where compiling takes
several.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple
from uuid import uuid4

import joblib
import numpy as np

from sklmm.families import CustomFamily
from sklmm.families.constraints import CONSTRAINTS
from sklmm.families.modelled import expanded
from sklmm.families.special import NUMPY


@dataclass(frozen=True)
class _Method:
    """`distribution` of a family, equal for equal families, where a bound method is not."""

    family: type
    parameters: tuple

    def __call__(self, eta, **parameters):
        return self.family(**dict(self.parameters)).distribution(eta, **parameters)


def _function(family):
    """The function eta, parameters -> TFP distribution of a custom family, hashable by value."""
    if type(family) is CustomFamily:
        return family.function
    method = _Method(type(family), tuple(family.get_params(deep=False).items()))
    try:
        hash(method)
    except TypeError:
        return family.distribution
    return method


def _reads(function):
    """What a function of the user's reads besides its arguments: in a graph it does not change."""
    if not inspect.isfunction(function):
        return (_digest(function),)
    outside = inspect.getclosurevars(function)
    values = {**outside.globals, **outside.nonlocals}
    return tuple((name, _hashable(value)) for name, value in sorted(values.items()))


def _hashable(value):
    try:
        hash(value)
    except TypeError:
        return _digest(value)
    return value


def _digest(value):
    try:
        return joblib.hash(value)
    except Exception:
        # What cannot be pickled is known by identity.
        return id(value)


@dataclass(frozen=True)
class Likelihood:
    """What compiled steps need of a family; hashable by value, so that equal families share them.

    Parameters
    ----------
    link : str
    density : type, optional
        The family's subclass of `sklmm.families.density.Density`.
    n_predictors : int
    names, constraints : tuple of str
        Estimated parameters, in the order of `raw`.
    pinned : tuple of (str, float)
    distribution : callable, optional
        ``distribution(eta, **parameters)`` -> TFP distribution, of a custom family.
    reads : tuple
        Values of the globals and of the closure that `distribution` reads.
    data : tuple of str
        Names of the row data, the columns of y after the first.
    linear : tuple of `engine.likelihood.parameters.LinearParameter`
        Parameters by row, of whose coefficients `names` are.
    """

    link: str
    density: type | None = None
    n_predictors: int = 1
    names: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    pinned: tuple[tuple[str, float], ...] = ()
    distribution: Callable | None = None
    reads: tuple = ()
    data: tuple[str, ...] = ()
    linear: tuple = ()

    @classmethod
    def of(cls, family, n_classes=None, models=()):
        """The likelihood of a checked `Family`, of whose parameters some have `models`."""
        parameters = expanded(family.parameters(n_classes), models)
        free = {k: v for k, v in parameters.items() if isinstance(v, str)}
        custom = family.is_custom
        return cls(
            link=getattr(family, "link", "identity"),
            density=None if custom else family.density,
            n_predictors=family.n_predictors(n_classes),
            names=tuple(free),
            constraints=tuple(free.values()),
            pinned=tuple((k, float(v)) for k, v in parameters.items() if k not in free),
            distribution=_function(family) if custom else None,
            reads=_reads(family.function) if type(family) is CustomFamily else (),
            data=tuple(family.row_data),
            linear=_linear(models, list(free), 1 + len(family.row_data)) if models else (),
        )

    @property
    def predicted(self):
        """(name, constraint) of the parameters that have a linear predictor, in their order."""
        return getattr(self.density, "parameters", ())

    @property
    def of_means(self):
        """The likelihood of one predictor, in which all rows share those parameters."""
        names, constraints = zip(*self.predicted, strict=True)
        return replace(
            self,
            density=self.density.base,
            n_predictors=1,
            names=self.names + names,
            constraints=self.constraints + constraints,
        )

    @property
    def wide(self):
        """Whether y is [n, m]."""
        return bool(self.data or self.linear)

    @property
    def scalars(self):
        """(number among raw, name, constraint) of the parameters that all rows share."""
        by_row = {i for own in self.linear for i in range(*own.raw)}
        named = zip(self.names, self.constraints, strict=True)
        return [(i, *own) for i, own in enumerate(named) if i not in by_row]

    def constrain(self, raw):
        """All parameters by name, as tensors of raw's dtype and trailing shape."""
        return _tensors().constrain(self, raw)

    def log_prob(self, y, eta, raw):
        """log p(y | eta) [n, C], differentiable twice in eta and raw by autodiff.

        Terms that depend on neither eta nor raw are kept, but for the binomial coefficient.
        """
        return _tensors().log_prob(self, y, eta, raw)

    def log_prob_and_score(self, y, eta, raw):
        """log p(y | eta) [n, C] and its derivative in eta [n * d, C].

        A custom family's is by a tape.
        """
        return _tensors().log_prob_and_score(self, y, eta, raw)

    def curvature(self, y, eta, raw):
        """Weights [n * d, C] > 0 for Newton and Laplace: the mean of -d2 log p / d eta2 over y.

        The categorical ones are the diagonal p (1 - p). Of custom families what is observed where
        it is positive on average over the rows, else the mean squared score, so that Laplace's
        distribution has one too.
        """
        return _tensors().curvature(self, y, eta, raw)


def _linear(models, names, first):
    """The `LinearParameter`s among the estimated `names`; their columns are y's from `first`."""
    from sklmm.engine.likelihood.parameters import LinearParameter

    out, known = [], {}
    for model in models:
        # Of an offset alone there are none.
        size = len(model.names)
        begin = names.index(model.names[0]) if size else 0
        if model.component not in known:
            known[model.component] = first + 1, first + 1 + size
            first += 1 + size
        raw = begin, begin + size
        out.append(LinearParameter(model.parameter, model.kind, raw, known[model.component]))
    return tuple(out)


def _tensors():
    from sklmm.engine.likelihood import tensors

    return tensors


#: Likelihoods whose functions are kept.
KEPT = 64
#: Curvatures stay above this fraction of their median, of MEDIAN_ROWS rows at most.
FLOOR = 1e-7
MEDIAN_ROWS = 1024
#: Length of the steps by which scores and curvatures are differenced, in float64.
STEP = 1e-4
#: Length of the steps by which a custom density is differenced in raw.
RAW_STEP = 1e-5


class Evaluation(NamedTuple):
    """Functions of y [n], eta [n * d, C] and raw [., C].

    by_row: log f [n, C], its derivative in eta, and `curvature` at the first column (of a custom
    family at all of them). curvature: W [n * d, C] alone, the expected curvature, for families of
    classes the observed one, above 0. observed, likewise: less the
    second derivative of log f, of any sign (a custom family has only one kind). slopes, of the
    weights w [n] after y: log f, and the derivatives of its weighted sum in eta and raw. both:
    log f and its derivative in eta, as quickly as they come; score: the derivative alone. parts:
    both, and a list of the derivatives in each entry of raw, which broadcast to [n, C]. bends:
    both, and less the second derivative in eta; None of a custom family, whose curvature may be an
    expected one, and of several predictors, whose curvature is the diagonal. second:
    less the second derivatives [n, C] in eta, in eta and each entry of raw (a list), and in two
    entries i <= j (a dict by (i, j)); None where differences are to tell them. `single` says that
    slopes keep their digits in float32.

    A built-in family's are in the precision of eta. At one point, eta [n * d, 1] and raw [q]:
    in_raw, of the same weights, the derivatives in raw of those in eta and raw, [n * d, q] and [q,
    q]; bent, of a `height` [n * d] after y, its product with the derivatives of the curvature, the
    `observed` one or not, in eta [n * d], and its sums with those in raw [q].

    Of several predictors, blocks: less the second derivatives in those of a row [n, d, d, C]; and
    bent_blocks, likewise, of heights [n, d, d] their products with the derivatives of the blocks.
    """

    by_row: object
    curvature: object
    observed: object
    slopes: object
    both: object
    score: object
    in_raw: object
    bent: object
    parts: object
    bends: object = None
    second: object = None
    single: bool = False
    like: Likelihood | None = None
    blocks: object = None
    bent_blocks: object = None

    def __reduce__(self):
        # In another process they are its own, and made once.
        return _remade, (_token(self.like), self.like)


def observes(like):
    """Whether Laplace's log |C| can have the observed curvature: where log f is (nearly) concave.

    Elsewhere C may lose its rank at a mode, and -log |C| / 2 has no bound. The beta density, gamma
    by the identity link and negative binomial by sqrt and identity are convex only for an eta that
    is far on one side of y: they keep the observed one, as TMB does.
    """
    return like.distribution is not None or like.link not in like.density.convex_links


@lru_cache(maxsize=KEPT)
def _token(like):
    """What a likelihood is known by in other processes, where its function is another each time."""
    return uuid4().hex


def _remade(token, like):
    """The `Evaluation` of a likelihood of another process."""
    if token not in _MADE:
        while len(_MADE) >= KEPT:
            _MADE.pop(next(iter(_MADE)), None)
        _MADE[token] = evaluation(like)
    return _MADE[token]


#: Those of other processes' likelihoods, by their tokens.
_MADE = {}


@lru_cache(maxsize=KEPT)
def evaluation(like):
    """`Evaluation` of a likelihood."""
    if like.distribution is not None:
        from sklmm.engine.likelihood.traced import traced_evaluation

        traced = traced_evaluation(like)
        return Evaluation(*traced, _differenced(traced[0]), like=like)

    scalars = like.scalars
    if like.wide:
        from sklmm.engine.likelihood.parameters import by_entry, flat, of_rows, summed

    def at(y, eta, raw):
        eta = np.asarray(eta)
        eta = eta if eta.dtype == np.float32 else np.asarray(eta, float)
        y, raw = np.asarray(y, eta.dtype), np.asarray(raw, eta.dtype)
        if raw.ndim == 2 and raw.shape[1] > 1 and (raw == raw[:, :1]).all():
            # What depends on y and parameters alone has one column.
            raw = raw[:, :1]
        parameters = {name: np.full((1, 1), value, eta.dtype) for name, value in like.pinned}
        for i, name, kind in scalars:
            parameters[name] = CONSTRAINTS[kind].constrain(raw[i])[None, :]
        if not like.wide:
            return like.density(NUMPY, y[:, None], eta, parameters, like.link)
        parameters |= of_rows(like, y, raw, lambda kind, value: CONSTRAINTS[kind].constrain(value))
        return like.density(NUMPY, y[:, :1], eta, parameters, like.link)

    def in_parameters(density, y):
        """Log f's derivatives in each entry of raw, a list."""
        return flat(like, y, by_name(density)) if like.linear else density.slopes_in(like.names)

    def by_name(density):
        named = [name for _, name, _ in scalars] + [own.name for own in like.linear]
        return dict(zip(named, density.slopes_in(named), strict=True))

    def sums_in_parameters(density, y, w, shape):
        """Their sums over rows, by weights."""
        if not like.linear:
            return [w @ np.broadcast_to(part, shape) for part in density.slopes_in(like.names)]
        found = {name: np.broadcast_to(part, shape) for name, part in by_name(density).items()}
        return summed(like, y, w, found)

    # Beyond what float64 can say a density is 0, and an overflow on the way there is no news.
    @np.errstate(all="ignore")
    def by_row(y, eta, raw, own=False):
        density = first = at(y, eta, raw)
        if eta.shape[1] > 1:
            first = at(y, eta[:, :1], raw[:, :1])
        if own:
            bend = np.broadcast_to(first.observed, eta[:, :1].shape)
            return density.value, density.score, bend
        return density.value, density.score, _above_floor(first.expected, eta[:, :1])

    @np.errstate(all="ignore")
    def curvature(y, eta, raw):
        return (_above_floor(at(y, eta, raw).expected, eta),)

    @np.errstate(all="ignore")
    def observed(y, eta, raw):
        return (np.broadcast_to(at(y, eta, raw).observed, np.shape(eta)),)

    @np.errstate(all="ignore")
    def slopes(y, w, eta, raw):
        density, single = at(y, eta, raw), eta.dtype == np.float32
        value, score = density.value_and_score if single else (density.value, density.score)
        d, C = like.n_predictors, eta.shape[1]
        of_raw = sums_in_parameters(density, y, w, (len(y), C))
        by_eta = score if (w == 1).all() else np.repeat(w, d)[:, None] * score
        return value, by_eta, np.reshape(of_raw, (len(of_raw), C))

    @np.errstate(all="ignore")
    def both(y, eta, raw):
        return at(y, eta, raw).value_and_score

    @np.errstate(all="ignore")
    def score(y, eta, raw):
        return at(y, eta, raw).quick_score

    def in_raw(y, w, eta, raw):
        columns, away = _about(eta, raw)
        if not len(raw):
            return np.zeros((len(eta), 0)), np.zeros((0, 0))
        _, by_eta, of_raw = slopes(y, w, columns, away)
        return _rates(by_eta, STEP), _rates(of_raw, STEP)

    @np.errstate(all="ignore")
    def bent(y, height, eta, raw, own):
        kind = observed if own else curvature
        slope = at(y, eta, raw[:, None]).observed_slope if own else None
        if slope is None:
            h = STEP * min(1.0, max(float(np.sqrt(np.mean(eta**2))), STEP))
            ends = np.concatenate([eta + h, eta - h], axis=1)
            (W,) = kind(y, ends, np.repeat(raw[:, None], 2, axis=1))
            slope = _rates(W, h)
        in_eta = height * slope[:, 0]
        if not len(raw):
            return in_eta, np.zeros(0)
        return in_eta, height @ _rates(kind(y, *_about(eta, raw))[0], STEP)

    @np.errstate(all="ignore")
    def parts(y, eta, raw):
        density = at(y, eta, raw)
        return *density.value_and_score, in_parameters(density, y)

    @np.errstate(all="ignore")
    def bends(y, eta, raw):
        density = at(y, eta, raw)
        return *density.value_and_score, np.broadcast_to(density.observed, eta.shape)

    @np.errstate(all="ignore")
    def second(y, eta, raw):
        density, shape = at(y, eta, raw), eta.shape
        in_eta, inner = density.second or ({}, {})
        if like.linear:
            in_eta, inner = by_entry(like, y, in_eta, inner)
        mixed = [np.broadcast_to(in_eta[name], shape) for name in like.names]
        pairs = {
            (like.names.index(a), like.names.index(b)): np.broadcast_to(part, shape)
            for (a, b), part in inner.items()
            if a in like.names and b in like.names
        }
        return np.broadcast_to(density.observed, shape), mixed, pairs

    @np.errstate(all="ignore")
    def blocks(y, eta, raw):
        found = at(y, eta, raw).block
        if found is not None:
            return found
        d, (n, C) = like.n_predictors, eta.shape
        out = np.empty((n // d, d, d, C))
        for c in range(d):
            up, down = (at(y, _moved(eta, d, c, h), raw).score for h in (STEP, -STEP))
            out[:, :, c] = ((down - up) / (2 * STEP)).reshape(-1, d, C)
        return (out + out.transpose(0, 2, 1, 3)) / 2

    def bent_blocks(y, heights, eta, raw):
        d = like.n_predictors
        ends = [_moved(eta, d, c, h) for h in (STEP, -STEP) for c in range(d)]
        W = blocks(y, np.concatenate(ends, axis=1), np.repeat(raw[:, None], 2 * d, axis=1))
        in_eta = _rates(np.einsum("nab,nabk->nk", heights, W), STEP).ravel()
        if not len(raw):
            return in_eta, np.zeros(0)
        W = blocks(y, *_about(eta, raw))
        return in_eta, _rates(np.einsum("nab,nabk->k", heights, W)[None], STEP)[0]

    told = not like.names or like.density.second is not None
    one = like.n_predictors == 1
    known = by_row, curvature, observed, slopes, both, score, in_raw, bent, parts
    known += bends if one else None, second if one and told else None, told
    several = (None, None) if one else (blocks, bent_blocks)
    return Evaluation(*known, like, *several)


def _moved(eta, d, c, h):
    """Eta [n * d, C] with predictor c of each row further by h."""
    out = eta.copy()
    out[c::d] += h
    return out


def _about(eta, raw):
    """Eta [n * d, 1], and raw [q] with steps in each of its entries: 2 q columns of both."""
    q = len(raw)
    away = np.concatenate([STEP * np.eye(q), -STEP * np.eye(q)], axis=1)
    return np.repeat(eta, 2 * q, axis=1), raw[:, None] + away


def _rates(values, h):
    """Derivatives from values at steps up, and then as many down."""
    half = values.shape[1] // 2
    return (values[:, :half] - values[:, half:]) / (2 * h)


def _differenced(by_row):
    """`parts` from `by_row`, by differences in raw."""

    def parts(y, eta, raw):
        value, score, _ = by_row(y, eta, raw)
        slopes = []
        for h in RAW_STEP * np.eye(len(raw)):
            up, down = (np.asarray(by_row(y, eta, raw + s * h[:, None])[0]) for s in (1, -1))
            slopes.append((up - down) / (2 * RAW_STEP))
        return np.asarray(value), np.asarray(score), slopes

    return parts


def _above_floor(weights, eta):
    weights = np.broadcast_to(np.maximum(weights, 0.0), np.shape(eta))
    # A median, as the mean is that of one row where its curvature is huge: of some rows, for speed.
    median = np.median(weights[:: len(weights) // MEDIAN_ROWS + 1], axis=0, keepdims=True)
    floor = FLOOR * np.where(median > 0, median, weights.mean(axis=0, keepdims=True))
    return np.maximum(weights, np.maximum(floor, np.finfo(np.float32).tiny))
