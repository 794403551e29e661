"""Columns of a categorical variable: of each row one is not 0."""

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Indicators(NDArrayOperatorsMixin):
    """z [n_rows, r] of which a row has one entry: `values` [n_rows] at `places` [n_rows].

    values None are ones. A place of -1 is a row of zeros. Rows are taken as of an array; what it is
    not made for takes it for one, [n_rows, r].
    """

    ndim = 2
    dtype = np.dtype(float)

    def __init__(self, places, r, values=None):
        places = np.asarray(places)
        if values is None and (places < 0).any():
            values = (places >= 0) * 1.0
        self.places, self.values = np.maximum(places, 0).astype(np.int32, copy=False), values
        self.shape = len(places), r

    @staticmethod
    def joined(parts):
        """The rows of several, one after another."""
        places = np.concatenate([part.places for part in parts])
        values = None
        if any(part.values is not None for part in parts):
            values = np.concatenate([part.entries[:, 0] for part in parts])
        return Indicators(places, parts[0].shape[1], values)

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        out = np.zeros(self.shape, dtype or float)
        out[np.arange(len(out)), self.places] = 1.0 if self.values is None else self.values
        return out

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inputs = (np.asarray(x) if isinstance(x, Indicators) else x for x in inputs)
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __getitem__(self, key):
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if rest == [] and np.ndim(places := self.places[rows]) == 1:
            values = None if self.values is None else self.values[rows]
            return Indicators(places, self.shape[1], values)
        if len(rest) == 1 and isinstance(rest[0], int | np.integer):
            own = self.places[rows] == rest[0] % self.shape[1]
            return own * (1.0 if self.values is None else self.values[rows])
        return np.asarray(self)[key]

    @property
    def T(self):
        """The transpose, an array."""
        return np.asarray(self).T

    @property
    def entries(self):
        """The entries [n_rows, 1]; ones take no memory."""
        return _ones(len(self)) if self.values is None else self.values[:, None]

    def cells(self, refs):
        """Of rows of some levels [n_rows] the numbers of their effects: level * r + place."""
        kind = np.int64 if int(refs.max(initial=0)) + 1 > LARGEST // self.shape[1] else np.int32
        return refs.astype(kind, copy=False) * kind(self.shape[1]) + self.places

    def scaled(self, sizes):
        """The same with its columns multiplied by sizes [r]."""
        own = sizes[self.places]
        return Indicators(
            self.places, self.shape[1], own if self.values is None else own * self.values
        )

    def sums(self, weights):
        """Sums over the rows [r] of weights times the entries' squares."""
        if self.values is not None:
            weights = weights * self.values**2
        return np.bincount(self.places, weights, self.shape[1])


#: Of 32-bit numbers.
LARGEST = np.iinfo(np.int32).max


def _ones(n_rows):
    return np.broadcast_to(1.0, (n_rows, 1))


def applied(refs, z, b):
    """z^T b [n_rows, ...] of b [J, r, ...], at each row's own level, or summed over its levels.

    Level -1 is the last one.
    """
    if isinstance(z, Indicators):
        out = b.reshape(-1, *b.shape[2:]).take(z.cells(refs), axis=0, mode="wrap")
        return out if z.values is None else out * z.values.reshape(-1, *[1] * (out.ndim - 1))
    if z.ndim == 3:
        return sum(applied(refs[:, i], z[:, i], b) for i in range(z.shape[1]))
    taken = b.take(refs, axis=0, mode="wrap")
    return np.einsum("na,na...->n...", z, taken)


def quadratic(z, V, refs=None):
    """z^T V z [n_rows] of one V [r, r], or of each row's own level's V [J, r, r] at `refs`.

    Of several levels a row it is that of their sum, where different ones are independent.
    """
    if z.ndim == 3:
        return _of_levels(z, V, refs)
    one = V.ndim == 2
    if isinstance(z, Indicators):
        own = V[z.places, z.places] if one else V[refs, z.places, z.places]
        return own if z.values is None else own * z.values**2
    if one:
        return np.einsum("na,ab,nb->n", z, V, z)
    return np.einsum("na,nab,nb->n", z, V[refs], z)


def _of_levels(z, V, refs):
    out = np.zeros(len(z))
    for i in range(z.shape[1]):
        turned = np.einsum("na,nab->nb", z[:, i], V[refs[:, i]]) if V.ndim == 3 else z[:, i] @ V
        for j in range(z.shape[1]):
            same = refs[:, i] == refs[:, j]
            out += same * np.einsum("nb,nb->n", turned, z[:, j])
    return out
