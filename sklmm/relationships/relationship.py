"""`Relationship`: how the levels of a grouping factor are related, known beforehand."""

from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse

from sklmm._state import PlainState
from sklmm._threads import in_threads
from sklmm.relationships.pedigree import pedigree_root
from sklmm.relationships.precision import (
    NotPositive,
    of_covariance,
    of_precision,
    triangle_solver,
)

KINDS = ("relationship", "kinship", "precision")
#: Share of entries from which B is multiplied as a dense matrix.
DENSE = 0.1
#: Levels from which on Q is multiplied by threads, in so many parts.
LARGE = 50_000
PARTS = 4
#: Levels up to which the diagonal of a precision's inverse is found exactly, and draws beyond.
MOST_UNITS = 4096
N_DRAWS = 128
#: Difference of two entries, as a share of their levels' own, that a symmetric matrix may have.
ASYMMETRY = 1e-8
#: Arrays that stand for B, a CSR matrix, and the order of its columns in which it is a triangle;
#: and A's diagonal, None where it is to be found.
_ARRAYS = ("data", "indices", "indptr", "order", "variances")


class Relationship(PlainState):
    r"""A known relationship between the levels of a grouping factor.

    The effects of a term with it are b ~ N(0, A (x) Sigma): those of two levels i and j covary by
    A_ij times the covariance Sigma that a fit estimates. The animal model of breeding has A of a
    pedigree (`from_pedigree`), genomic prediction (GBLUP) that of markers, phylogenetic models the
    time that two species shared, and conditional autoregressions (CAR) the inverse of a sparse
    precision. All labels are levels of the term: those without rows of data are predicted from
    their relatives.

    Parameters
    ----------
    matrix : DataFrame, array-like or sparse matrix of shape (n_levels, n_levels)
        What `kind` says. The labels of a DataFrame are those of its rows, and its columns have the
        same ones, in any order.
    labels : array-like of shape (n_levels,), optional
        Labels of the levels, as in the grouping column: for a matrix that is no DataFrame.
    kind : {"relationship", "kinship", "precision"}, default="relationship"
        "relationship" is A itself, the numerator relationship of breeders, whose diagonal is 1 of
        an individual that is not inbred; "kinship" its half, the coefficient of coancestry;
        "precision" the inverse of A, best sparse.

    Attributes
    ----------
    labels : Index of shape (n_levels,)
        The levels, in their order in `random_effects_`.
    n_levels : int

    Raises
    ------
    ValueError
        For a matrix that is not square, not finite, not symmetric or not positive definite, and for
        labels that are missing, repeated, or other ones in the columns.

    Notes
    -----
    It cannot be changed, two of the same labels and matrix are equal, and copies are itself.

    References
    ----------
    Henderson (1976), A simple method for computing the inverse of a numerator relationship matrix
    used in prediction of breeding values, Biometrics 32, 69-83.

    VanRaden (2008), Efficient methods to compute genomic predictions, J. Dairy Sci. 91, 4414-4423.

    Besag (1974), Spatial interaction and the statistical analysis of lattice systems, J. R. Stat.
    Soc. B 36, 192-236.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklmm import MixedEffectsRegressor, RandomEffect, Relationship
    >>> A = pd.DataFrame([[1, 0.5], [0.5, 1]], index=["a", "b"], columns=["a", "b"])
    >>> Relationship(A)
    Relationship(2 levels)
    >>> Relationship(A / 2, kind="kinship") == Relationship(A)
    True
    """

    def __init__(self, matrix, labels=None, kind="relationship"):
        if kind not in KINDS:
            raise ValueError(
                f"Relationship: kind={kind!r} is not known: use {', '.join(map(repr, KINDS))}."
            )
        matrix, labels = _labelled(matrix, labels)
        matrix = _checked(matrix, labels)
        try:
            if kind == "precision":
                B, order = of_precision(sparse.csr_array(matrix))
                variances = None
            else:
                dense = matrix.toarray() if sparse.issparse(matrix) else matrix
                dense = dense * 2 if kind == "kinship" else dense
                B, order = of_covariance(dense)
                variances = dense.diagonal().copy()
        except NotPositive as error:
            raise ValueError(_not_positive(kind, labels, error.level)) from None
        self._set(B, order, labels, variances)

    @classmethod
    def from_pedigree(cls, pedigree, id="id", sire="sire", dam="dam"):
        """The numerator relationship A of a pedigree, by Henderson's sparse inverse.

        Parameters
        ----------
        pedigree : DataFrame
            A row for each individual, in any order. Parents without a row of their own are
            founders, and come first among the levels.
        id, sire, dam : str
            Columns of the individual's label and of its parents', all of one kind: text, without
            the blanks around it, or numbers, floats without a fraction among integers. An unknown
            parent is NaN, None, 0 or a blank, or in text ".", "*", "NA", "nan" or another word that
            pandas has for a missing value. An individual may be a sire here and a dam there, or
            both at once (selfing).

        Returns
        -------
        Relationship
            Of all individuals: A_ii = 1 + F_i with the coefficient of inbreeding F_i, half the
            relationship of the parents.

        Raises
        ------
        ValueError
            For individuals without a label or with two different pairs of parents, for one that
            is its own ancestor, and for one that its parents determine, as after more than thirty
            generations of selfing.
        TypeError
            For columns of labels of different kinds, such as "7" here and 7 there.

        Examples
        --------
        >>> import pandas as pd
        >>> from sklmm import Relationship
        >>> pedigree = pd.DataFrame({"id": ["c", "d"], "sire": ["a", "c"], "dam": ["b", "c"]})
        >>> relationship = Relationship.from_pedigree(pedigree)
        >>> relationship.labels.tolist()
        ['a', 'b', 'c', 'd']
        >>> relationship.to_frame().loc["d"].round(6).tolist()
        [0.5, 0.5, 1.0, 1.5]
        """
        out = cls.__new__(cls)
        out._set(*pedigree_root(pedigree, id, sire, dam))
        return out

    def _set(self, B, order, labels, variances):
        arrays = B.data, B.indices.astype(np.int32), B.indptr.astype(np.int32), order, variances
        for name, array in zip(_ARRAYS, arrays, strict=True):
            if array is not None:
                array.flags.writeable = False
            setattr(self, f"_{name}", array)
        self.labels = labels

    def __setattr__(self, name, value):
        if "labels" in vars(self):
            raise AttributeError(
                f"A Relationship cannot be changed: {name} is set when it is made."
            )
        super().__setattr__(name, value)

    def __getstate__(self):
        state = super().__getstate__()
        return {name: state[name] for name in ("labels", *(f"_{name}" for name in _ARRAYS))}

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, Relationship) or not self.labels.equals(other.labels):
            return False
        pairs = ((getattr(self, f"_{name}"), getattr(other, f"_{name}")) for name in _ARRAYS)
        return all(np.array_equal(*pair) for pair in pairs)

    def __hash__(self):
        return hash((len(self.labels), len(self._data), float(self._data.sum())))

    def __repr__(self):
        return f"Relationship({self.n_levels} levels)"

    @property
    def n_levels(self):
        """Number of levels."""
        return len(self.labels)

    @property
    def inbreeding(self):
        """A_ii - 1 of each level, a Series: of a pedigree the coefficients of inbreeding F."""
        return pd.Series(self.variances - 1, self.labels)

    @cached_property
    def variances(self):
        """A's diagonal [n_levels]; of a precision of more than 4,096 levels by draws."""
        if self._variances is not None:
            return self._variances
        if self.n_levels > MOST_UNITS:
            noise = np.random.default_rng(0).standard_normal((self.n_levels, N_DRAWS))
            return (self.back(noise) ** 2).mean(axis=1)
        return np.einsum("ii->i", self.relate(np.eye(self.n_levels)))

    def to_frame(self):
        """A as a DataFrame [n_levels, n_levels]: dense, for few levels."""
        return pd.DataFrame(self.relate(np.eye(self.n_levels)), self.labels, self.labels)

    def scaled(self, size):
        """The relationship A / size^2."""
        out = Relationship.__new__(Relationship)
        known = None if self._variances is None else self._variances / size**2
        out._set(self._B * size, self._order, self.labels, known)
        return out

    # What the engine asks: effects [n_levels, c].

    @cached_property
    def _B(self):
        return sparse.csr_array((self._data, self._indices, self._indptr), (self.n_levels,) * 2)

    @cached_property
    def matrix(self):
        """Q = A^-1, sparse [n_levels, n_levels]."""
        if self._B.nnz > DENSE * self.n_levels**2:
            B = self._B.toarray()
            return sparse.csr_array(B.T @ B)
        Q = (self._B.T @ self._B).tocsr()
        Q.sum_duplicates()
        return Q

    @cached_property
    def log_det(self):
        """Logarithm of the determinant of the precision."""
        return 2 * float(np.log(np.abs(self._B[:, self._order].diagonal())).sum())

    @cached_property
    def _solver(self):
        return triangle_solver(self._B, self._order)

    @cached_property
    def _root(self):
        return self._B.T.tocsr()

    @cached_property
    def _parts(self):
        """Q's rows in parts, whatever the number of threads."""
        if self.n_levels < LARGE:
            return [self.matrix]
        ends = np.linspace(0, self.n_levels, PARTS + 1).astype(int)
        return [self.matrix[a:b] for a, b in pairwise(ends)]

    def times(self, levels):
        """Q applied to [n_levels, c]."""
        parts = in_threads(lambda part: part @ levels, self._parts)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def root(self, noise):
        """B^T applied to [n_levels, c], for Q = B^T B."""
        return self._root @ noise

    def back(self, noise):
        """B^-1 applied to [n_levels, c]: of N(0, I), draws from N(0, A)."""
        out = np.empty_like(noise, dtype=float)
        out[self._order] = self._solver.solve(np.asarray(noise, float))
        return out

    def relate(self, levels):
        """A applied to [n_levels, c]."""
        return self.back(self._solver.solve(np.asarray(levels[self._order], float), "T"))


def _labelled(matrix, labels):
    """The matrix as an array or a sparse one, and the labels of its rows and columns."""
    if isinstance(matrix, pd.DataFrame):
        if labels is not None:
            raise ValueError("Relationship: a DataFrame has labels: leave out labels=.")
        labels = _unique(matrix.index)
        if not _unique(matrix.columns).sort_values().equals(labels.sort_values()):
            other = [*labels.difference(matrix.columns), *matrix.columns.difference(labels)]
            raise ValueError(
                f"Relationship: {other[0]!r} is a label of rows or of columns alone: give a "
                "DataFrame whose columns are labelled as its rows, such as K.set_axis(K.index, "
                "axis=1)."
            )
        matrix = matrix.loc[:, labels].to_numpy()
    elif labels is None:
        raise ValueError("Relationship: give labels=, one for each row, or a labelled DataFrame.")
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"Relationship: a matrix of shape {matrix.shape} is not square.")
    labels = _unique(pd.Index(labels, tupleize_cols=False))
    if len(labels) != len(matrix if isinstance(matrix, np.ndarray) else range(matrix.shape[0])):
        raise ValueError(
            f"Relationship: {len(labels)} labels for a matrix of {matrix.shape[0]} rows: give one "
            "for each row."
        )
    return matrix, labels


def _unique(labels):
    labels = pd.Index(labels)
    if labels.hasnans:
        raise ValueError("Relationship: a label is missing (NaN or None): give each level its own.")
    if not labels.is_unique:
        twice = labels[labels.duplicated()][0]
        raise ValueError(f"Relationship: the label {twice!r} stands twice: keep one of its rows.")
    return labels


def _checked(matrix, labels):
    """The matrix [n, n] as finite, symmetric floats."""
    matrix = matrix.astype(float)
    entries = sparse.coo_array(matrix)
    if (wrong := ~np.isfinite(entries.data)).any():
        i, j = entries.row[wrong][0], entries.col[wrong][0]
        raise ValueError(
            f"Relationship: the entry of {labels[i]!r} and {labels[j]!r} is {matrix[i, j]}: all "
            "must be finite."
        )
    size = np.sqrt(np.abs(matrix.diagonal()))
    apart = sparse.coo_array(abs(matrix - matrix.T))
    wrong = apart.data > ASYMMETRY * size[apart.row] * size[apart.col]
    if wrong.any():
        i, j = apart.row[wrong][0], apart.col[wrong][0]
        raise ValueError(
            f"Relationship: the matrix is not symmetric, it has {matrix[i, j]:.6g} of "
            f"{labels[i]!r} and {labels[j]!r} and {matrix[j, i]:.6g} the other way round: give (K "
            "+ K.T) / 2 if that is rounding."
        )
    return (matrix + matrix.T) / 2


def _not_positive(kind, labels, level):
    where = "" if level is None else f", first at {labels[level]!r}"
    if kind == "precision":
        return (
            f"Relationship: the precision is not positive definite{where}: an intrinsic "
            "autoregression (ICAR), whose rows sum to 0, has no covariance. Make it proper: D - "
            "rho W with |rho| < 1 in place of D - W, or add a small number to the diagonal."
        )
    return (
        f"Relationship: the matrix is not positive definite{where}: a level that others determine, "
        "such as a clone or a duplicate, or genomic relationships of centred markers. Leave out "
        "duplicates, or blend, 0.99 K + 0.01 I."
    )
