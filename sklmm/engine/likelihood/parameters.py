"""What a density reads of a row besides y and eta: data of its own, and parameters by row.

The engine's y is then [n, m]: y itself, the row data, and the columns of parameters that are linear
in them on their unconstrained scale, each row's offset before them. One text serves NumPy's arrays
and TensorFlow's tensors.
"""

from typing import NamedTuple

import numpy as np


class LinearParameter(NamedTuple):
    """A family's parameter whose unconstrained value is linear in columns of the rows.

    Its coefficients are the entries `raw`, (first, last), of the raw parameters; their columns are
    `columns`, (first, last), of y, and the column before these is an offset.
    """

    name: str
    kind: str
    raw: tuple[int, int]
    columns: tuple[int, int]

    def predictor(self, y, raw):
        """Unconstrained values [n, C] in rows y [n, m] at raw [q, C]."""
        first, last = self.columns
        begin, end = self.raw
        return y[:, first - 1 : first] + y[:, first:last] @ raw[begin:end]

    def along(self, y):
        """The columns, each [n, 1]: what the coefficients multiply."""
        return [y[:, j : j + 1] for j in range(*self.columns)]


def wide(y, response, parts):
    """Rows y [n, m] of a response in the table's units, with columns of `parts` of a design."""
    columns = [y] if response.data is None else [y, response.data]
    for component in dict.fromkeys(model.component for model in response.models):
        own = next(part for part in parts if part.component == component)
        columns += [np.zeros(len(y)) if own.offset is None else own.offset, own.X]
    return np.column_stack(columns)


def of_rows(like, y, raw, constrain):
    """Row data and linear parameters by name, of rows y [n, m] at raw [q, C].

    `constrain` takes a constraint and unconstrained values.
    """
    out = {name: y[:, j : j + 1] for j, name in enumerate(like.data, 1)}
    for own in like.linear:
        out[own.name] = constrain(own.kind, own.predictor(y, raw))
    return out


def flat(like, y, by_name, along=lambda column, part: column * part):
    """Derivatives in each entry of raw, a list, from those in each parameter's own scalar.

    `by_name` has the latter; `along` makes of a column [n, 1] and one of them the former.
    """
    # One of an offset alone has no coefficients.
    linear = {own.raw[0]: own for own in like.linear if own.raw[0] < own.raw[1]}
    out = []
    while len(out) < len(like.names):
        own = linear.get(len(out))
        if own is None:
            out.append(by_name[like.names[len(out)]])
        else:
            out += [along(column, by_name[own.name]) for column in own.along(y)]
    return out


def summed(like, y, w, by_name):
    """Sums [C] over rows of the same, by weights w [n], likewise."""
    linear = {own.raw[0]: own for own in like.linear if own.raw[0] < own.raw[1]}
    out = []
    while len(out) < len(like.names):
        own = linear.get(len(out))
        if own is None:
            out.append(w @ by_name[like.names[len(out)]])
        else:
            out += [*((w[:, None] * y[:, slice(*own.columns)]).T @ by_name[own.name])]
    return out


def by_entry(like, y, in_eta, inner):
    """`Density.second` by the names of raw's entries from that by the parameters' names."""
    linear = {own.name: own for own in like.linear}

    def entries(name):
        """(name, column or 1) of each entry of raw that a parameter has."""
        if name not in linear:
            return [(name, 1.0)]
        own = linear[name]
        return zip(like.names[slice(*own.raw)], own.along(y), strict=True)

    place = {name: i for i, name in enumerate(like.names)}
    mixed = {
        entry: column * part for name, part in in_eta.items() for entry, column in entries(name)
    }
    pairs = {}
    for (a, b), part in inner.items():
        for one, first in entries(a):
            for other, second in entries(b):
                if a != b or place.get(one, 0) <= place.get(other, 0):
                    pairs[one, other] = first * second * part
    return mixed, pairs
