"""A backend of rows in two halves, as one would write it by the protocol."""

import numpy as np

from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.protocol import Coefs


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
        for name in ("value", "score", "of_raw", "score_in_raw", "raw_in_raw"):
            setattr(self, name, add(*(getattr(part, name) for part in parts)))
        self.weights, self.bend = (tuple(getattr(p, n) for p in parts) for n in ("weights", "bend"))


class HalvesRemaining(Sums):
    def spread(self, blocks, columns):
        for part in self.parts:
            part.spread(blocks, columns)


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

    def ordered(self):
        return Halves(parts=[part.ordered() for part in self.parts])

    def held(self, beta):
        return Halves(parts=[part.held(beta) for part in self.parts])

    def bare(self):
        return Halves(parts=[part.bare() for part in self.parts])

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

    def gram(self, at=None):
        return add(*self._each("gram", at=at))

    def product(self, coefs, at=None):
        return add(*self._each("product", coefs, at=at))

    def evaluate(self, *args):
        found = [part.evaluate(*args) for part in self.parts]
        return *add(*(one[:2] for one in found)), tuple(one[2] for one in found)

    def scored(self, *args):
        return add(*(part.scored(*args) for part in self.parts))

    def score(self, *args):
        return add(*(part.score(*args) for part in self.parts))

    def slopes(self, *args):
        return add(*(part.slopes(*args) for part in self.parts))

    def information(self, *args):
        return add(*(part.information(*args) for part in self.parts))

    def safe(self, *args, at):
        return tuple(self._each("safe", *args, at=at))

    def expand(self, *args):
        return HalvesExpanded([part.expand(*args) for part in self.parts])

    def remainder(self, likelihood, coefs, raw, at, **known):
        return HalvesRemaining(
            [
                part.remainder(likelihood, coefs, raw, own, **known)
                for part, own in zip(self.parts, at, strict=True)
            ]
        )

    def constant(self, *args):
        return add(*(part.constant(*args) for part in self.parts))

    def sample(self, most):
        return self.parts[0].sample(most)
