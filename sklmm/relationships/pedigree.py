r"""Henderson's inverse of a pedigree's relationship, sparse, with inbreeding.

Ordered by generation, an individual's breeding value is the mean of its parents' and a Mendelian
deviation of variance D_i: u = T D^1/2 v for v ~ N(0, I), where (T^-1 u)_i = u_i - (u_s + u_d) / 2.
So A = T D T^T, and

    A^-1 = B^T B,    B = D^-1/2 T^-1,

has three numbers a row (Henderson 1976, Biometrics 32, 69-83). With coefficients of inbreeding F,

    D_i = 1/2 - (F_s + F_d) / 4,   3/4 - F_s / 4 with one parent known,   1 of a founder,
    F_i = A_sd / 2 = sum_k T_sk D_k T_dk / 2,

where row s of T has the individual's shares in its ancestors, as in Meuwissen & Luo (1992, Genet.
Sel. Evol. 24, 305-313): here of all parents of a generation at once, as sparse matrices. After many
generations all have most of the founders' descendants for ancestors; the parents' relationship
itself is smaller then.
"""

import numpy as np
import pandas as pd
from scipy import sparse

from sklmm.relationships.precision import SINGULAR

#: Texts that stand for an unknown parent, in files of breeders and those that pandas writes.
UNKNOWN = ("", "0", ".", "*", "NA", "N/A", "NaN", "nan", "None", "null", "<NA>")
#: What errors call the kinds of labels, by pandas' names for them; others have those.
KINDS = {"string": "text", "integer": "numbers", "floating": "numbers"}
KINDS |= {"mixed-integer-float": "numbers", "mixed-integer": "numbers and text", "mixed": "objects"}
#: Pairs of parents that are worked out together, by the ancestors that they have in all.
CHUNK = 1 << 24
#: Generations from which on the parents' relationship is kept in the place of their shares, and the
#: numbers that it may have.
DEEP = 12
MOST = 1 << 27


def pedigree_root(pedigree, id, sire, dam):
    """(B csr, order, labels, 1 + F) of a pedigree, a DataFrame with these columns."""
    labels, parents = parents_of(pedigree, id, sire, dam)
    generations = generations_of(parents, labels)
    D, F = mendelian_variances(parents, generations)
    if (fixed := D <= SINGULAR * (1 + F)).any():
        raise ValueError(
            f"Relationship.from_pedigree: {_shown(labels, np.argmax(fixed))} is determined by its "
            "parents, whose coefficients of inbreeding are 1 to ten digits, as after more than "
            "thirty generations of selfing: leave out the rows of such generations, and give their "
            "records the label of a parent."
        )
    n = len(labels)
    own = np.arange(n)
    rows, columns, values = [own], [own], [np.ones(n)]
    for parent in parents:
        known = np.flatnonzero(parent >= 0)
        rows.append(known)
        columns.append(parent[known])
        values.append(np.full(len(known), -0.5))
    rows, columns, values = (np.concatenate(part) for part in (rows, columns, values))
    order = np.concatenate(generations)
    place = np.empty(n, np.int64)
    place[order] = own
    values /= np.sqrt(D[rows])
    # Both parents of a selfed individual are one, whose entries are added.
    return sparse.coo_array((values, (place[rows], columns)), (n, n)).tocsr(), order, labels, 1 + F


def parents_of(pedigree, id, sire, dam):
    """(labels, (sires, dams)): places of the parents among the labels, -1 of unknown ones."""
    if not isinstance(pedigree, pd.DataFrame):
        raise TypeError(
            f"Relationship.from_pedigree: pedigree is a {type(pedigree).__name__}: give a "
            "DataFrame."
        )
    for column in (id, sire, dam):
        if column not in pedigree:
            known = ", ".join(map(repr, pedigree.columns[:10]))
            raise ValueError(
                f"Relationship.from_pedigree: no column {column!r} among {known}: name those of "
                "the individual and its parents, id=, sire= and dam=."
            )
    columns = [_names(pedigree[column]) for column in (id, sire, dam)]
    _check_kinds(dict(zip((id, sire, dam), columns, strict=True)))
    if (missing := columns[0].isna()).any():
        raise ValueError(
            f"Relationship.from_pedigree: row {int(np.argmax(missing))} has no {id!r} (NaN, None, "
            f"or one of {', '.join(map(repr, UNKNOWN))}): give each individual a label."
        )
    codes, labels = pd.factorize(pd.concat(columns, ignore_index=True), use_na_sentinel=True)
    own, *parents = np.split(codes, 3)
    # Founders without a row come first, then the rows' individuals as they come.
    has_row = np.zeros(len(labels), bool)
    has_row[own] = True
    first = np.concatenate([np.flatnonzero(~has_row), np.flatnonzero(has_row)])
    place = np.empty(len(labels) + 1, np.int64)
    place[first], place[-1] = np.arange(len(labels)), -1
    own, labels = place[own], pd.Index(labels)[first].infer_objects()
    found = []
    for parent in parents:
        of_each = np.full(len(labels), -1)
        of_each[own] = place[parent]
        found.append(of_each)
    given = np.stack([place[parent] for parent in parents])
    if (other := (given != np.stack(found)[:, own]).any(axis=0)).any():
        raise ValueError(
            f"Relationship.from_pedigree: {_shown(labels, own[np.argmax(other)])} stands twice, "
            "with other parents: keep the row that is right."
        )
    return labels, tuple(found)


def _names(column):
    """A column of labels, unknown ones NaN; text without the blanks around it."""
    column = column.reset_index(drop=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return _integers(column.where(column != 0))
    text = column.astype("string").str.strip()
    column = column.astype(object).where(~(text.isna() | text.isin(UNKNOWN)))
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "string":
        return text.astype(object).where(column.notna())
    return _integers(pd.to_numeric(column)) if KINDS.get(kind) == "numbers" else column


def _integers(column):
    """Numbers without a fraction as integers: a missing parent makes floats of them in pandas."""
    known = column.dropna()
    whole = bool((known == known // 1).all())
    return column.astype("Int64").astype(object) if whole else column.astype(object)


def _check_kinds(columns):
    """TypeError where labels of the columns, by name, are of more than one kind: "7" is not 7."""
    found = {}
    for name, column in columns.items():
        if len(known := column.dropna()):
            kind = pd.api.types.infer_dtype(known, skipna=False)
            found[name] = KINDS.get(kind, kind), known.iloc[0]
    for name, (kind, label) in found.items():
        first, (own, example) = next(iter(found.items()))
        if kind != own or kind in ("numbers and text", "objects"):
            beside = f", and {first!r} {own}, like {example!r}" * (kind != own)
            raise TypeError(
                f"Relationship.from_pedigree: {name!r} has {kind}, like {label!r}{beside}: labels "
                "are compared within one kind. Read all three columns as text, "
                "pd.read_csv(..., dtype=str), or as numbers, with na_values=['.'] where '.' is an "
                "unknown parent; or convert one by astype."
            )
    if found and found[next(iter(found))][0] == "text":
        own, *parents = columns
        _check_floats(columns[own], {name: columns[name] for name in parents})


def _check_floats(own, parents):
    """ValueError where text of parents has a fraction of 0, "2.0", that that of labels has not."""
    for name, column in parents.items():
        known = column.dropna()
        ends = known[known.str.endswith(".0")]
        if (same := ends.str[:-2].isin(own)).any():
            label = ends[same].iloc[0]
            raise ValueError(
                f"Relationship.from_pedigree: {name!r} has {label!r}, which is not {label[:-2]!r}: "
                "a missing value makes floats of numbers. Convert them by astype('Int64') before "
                "astype(str)."
            )


def _shown(labels, place):
    """A label as Python writes it."""
    return repr(labels[[place]].tolist()[0])


def generations_of(parents, labels):
    """Individuals of each generation, arrays: all parents are in earlier ones."""
    n = len(labels)
    left = sum((parent >= 0).astype(np.int64) for parent in parents)
    child = np.concatenate([np.flatnonzero(parent >= 0) for parent in parents])
    parent = np.concatenate([parent[parent >= 0] for parent in parents])
    children = sparse.csr_array((np.ones(len(child)), (parent, child)), (n, n))
    # Of a selfed individual both parents are known at once.
    counts = children.data.astype(np.int64)
    current, out, done = np.flatnonzero(left == 0), [], 0
    while len(current):
        out.append(current)
        done += len(current)
        starts, ends = children.indptr[current], children.indptr[current + 1]
        sizes = ends - starts
        entries = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        entries += np.arange(sizes.sum())
        found = children.indices[entries]
        np.subtract.at(left, found, counts[entries])
        current = np.unique(found)
        current = current[left[current] == 0]
    if done < n:
        raise ValueError(_loop(parents, left, labels))
    return out


def _loop(parents, left, labels):
    """Who is an ancestor of itself: parents of those in or after a loop lead back into one."""
    at, path = int(np.argmax(left > 0)), []
    while at not in path:
        path.append(at)
        at = next(int(parent[at]) for parent in parents if parent[at] >= 0 and left[parent[at]] > 0)
    loop = [*path[path.index(at) :], at]
    names = " <- ".join(_shown(labels, i) for i in loop[:8])
    return (
        f"Relationship.from_pedigree: {_shown(labels, at)} is its own ancestor ({names}): correct "
        "the parents of one of these."
    )


def mendelian_variances(parents, generations):
    """(D [n], F [n]), from the inbreeding of each generation's parents."""
    n, (sires, dams) = len(parents[0]), parents
    F, D = np.zeros(n), np.ones(n)
    both = (sires >= 0) & (dams >= 0)
    # What is known of a parent is needed until the last generation that has children of it.
    number, last = np.empty(n, np.int64), np.full(n, -1)
    for g, own in enumerate(generations):
        number[own] = g
    for parent in parents:
        known = parent >= 0
        np.maximum.at(last, parent[known], number[known])
    kept, where = np.zeros(0, np.int64), np.full(n + 1, -1)
    # How many are kept after each generation.
    begun = np.bincount(number[last >= 0], minlength=len(generations))
    active = np.cumsum(begun - np.bincount(last[last >= 0], minlength=len(generations)))
    deep = len(generations) > DEEP and active.max(initial=0) ** 2 <= MOST
    known = Dense(np.zeros((0, 0)), D) if deep else Shares(sparse.csr_array((0, n)), D)
    for g, own in enumerate(generations):
        where[kept] = np.arange(len(kept))
        pairs = own[both[own]]
        F[pairs] = _inbreeding(known, where, sires[pairs], dams[pairs])
        share = sum(np.where(p[own] >= 0, 1 + F[p[own]], 0.0) for p in parents)
        D[own] = 1 - share / 4
        new, stays = own[last[own] > g], np.flatnonzero(last[kept] > g)
        half = sparse.csr_array((len(new), len(kept)))
        for parent in parents:
            some = np.flatnonzero(parent[new] >= 0)
            places = np.full(len(some), 0.5), (some, where[parent[new[some]]])
            half = half + sparse.csr_array(places, half.shape)
        where[kept] = -1
        kept = np.concatenate([kept[stays], new])
        known = known.next(stays, half, new)
    return D, F


class Shares:
    """Shares T [k, n] of some individuals in their ancestors, sparse; D [n] is filled meanwhile."""

    def __init__(self, T, D):
        self.T, self.D = T, D

    def related(self, one, two):
        """A of the pairs (one, two), places among the individuals."""
        weighted = self.T.copy()
        weighted.data *= self.D[self.T.indices]
        counts = np.diff(self.T.indptr)
        sizes = np.cumsum(counts[one] + counts[two])
        cuts = np.searchsorted(sizes, np.arange(CHUNK, sizes[-1], CHUNK))
        parts = zip(np.split(one, cuts), np.split(two, cuts), strict=True)
        return np.concatenate([self.T[a].multiply(weighted[b]).sum(axis=1) for a, b in parts])

    def next(self, stays, half, new):
        """Those that stay, and new ones, who are half of each parent, `half` [., k], and D."""
        units = (np.ones(len(new)), (np.arange(len(new)), new))
        shares = half @ self.T + sparse.csr_array(units, (len(new), len(self.D)))
        return Shares(sparse.vstack([self.T[stays], shares], "csr"), self.D)


class Dense:
    """The same by the relationship A [k, k], dense: of a deep pedigree it is smaller."""

    def __init__(self, A, D):
        self.A, self.D = A, D

    def related(self, one, two):
        """A of the pairs (one, two)."""
        return self.A[one, two]

    def next(self, stays, half, new):
        """As `Shares.next`."""
        across = half @ self.A
        own = half @ across.T
        own[np.diag_indices(len(new))] += self.D[new]
        if not len(stays):
            return Dense(own, self.D)
        across = across[:, stays]
        return Dense(np.block([[self.A[np.ix_(stays, stays)], across.T], [across, own]]), self.D)


def _inbreeding(known, where, sires, dams):
    """F of children of the pairs: half the parents' relationship."""
    if not len(sires):
        return np.zeros(0)
    pairs = np.minimum(sires, dams) * np.int64(len(where)) + np.maximum(sires, dams)
    _, firsts, same = np.unique(pairs, return_index=True, return_inverse=True)
    return 0.5 * known.related(where[sires[firsts]], where[dams[firsts]])[same]
