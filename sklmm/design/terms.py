"""Random-effect terms: a grouping factor, and the coefficients that vary over its levels.

A term gives every level j its own coefficients b_j ~ N(0, Sigma) for the columns on its left-hand
side. `sklmm.design.grammar` reads the notation of formulas.
"""

from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np

from sklmm._state import PlainState
from sklmm.covariances import NAMED, Covariance, Diagonal, Pinned, Unstructured
from sklmm.design.columns import is_frame, numeric_columns
from sklmm.design.grammar import EQUAL, quoted, read_term
from sklmm.design.indicators import Indicators
from sklmm.relationships import Relationship

INTERCEPT = "Intercept"
#: Numbers in the derivatives of a covariance, at most.
LARGEST = 20_000_000


@dataclass(frozen=True)
class RandomEffect:
    """One random-effect term: a grouping factor and the coefficients that vary over its levels.

    Parameters
    ----------
    group : str, int or sequence of them
        Column (name or position) of the grouping factor; several columns are their interaction
        ``a:b``, one level for each combination, or with `weights` those of a row's memberships.
    slopes : sequence of str or int, default=()
        Columns whose coefficients vary over the levels. A number has one coefficient. A category,
        a text or a boolean has one for each category but the first, the difference to that, or
        for each one where `intercept` is False.
    intercept : bool, default=True
        Whether the intercept varies.
    correlated : bool, default=True
        Whether the coefficients of a level are correlated (lme4's ``|``) or independent (``||``).
    sd : float, optional
        Pins the standard deviation of each coefficient (in units of y per unit of its column)
        instead of estimating it; a pinned term is uncorrelated.
    covariance : str, Covariance or Relationship, optional
        Covariance of a level's coefficients: ``"us"``, ``"diag"``, ``"cs"``, ``"ar1"`` or
        ``"toep"``, or an object such as ``CompoundSymmetry(heterogeneous=False)`` or one of a
        class of your own (`sklmm.covariances`). Of ``"ar1"`` and ``"toep"`` the only slope is a
        column of times or categories, and `intercept` is False. None is that of `correlated`. With
        a `Relationship` the levels are related as it says, and the covariance is that of
        `correlated` and `sd`.
    weights : "equal" or sequence of str or int, optional
        Makes a row belong to several levels, those in all columns of `group`: to teachers one after
        another, or to the districts about it. Its effect is the sum of theirs, each times the
        number in its column of `weights`, which is taken as it is, or times one over the number of
        the row's memberships if they are ``"equal"``. A missing label is no membership. The levels
        are the labels of all columns (Browne, Goldstein & Rasbash 2001, Statistical Modelling 1,
        103-124).

    Raises
    ------
    ValueError
        For a term without coefficients, an `sd` that is not positive, a name that no covariance
        has, a `covariance` beside ``correlated=False`` or `sd`, a `Relationship` of an interaction
        or of memberships, or `weights` that are not one a column.
    TypeError
        For a `covariance` that is none.

    Examples
    --------
    >>> from sklmm import RandomEffect
    >>> RandomEffect("subject", slopes=["days"]).label
    'subject'
    >>> RandomEffect(("school", "class")).label
    'school:class'
    >>> print(RandomEffect(["teacher1", "teacher2"], weights=["share1", "share2"]))
    (1 | mm(teacher1, teacher2, weights = cbind(share1, share2)))
    """

    group: str | int | tuple
    slopes: tuple = ()
    intercept: bool = True
    correlated: bool = True
    sd: float | None = None
    covariance: str | Covariance | Relationship | None = None
    weights: str | tuple | None = None

    def __post_init__(self):
        if isinstance(self.slopes, str | Integral):
            object.__setattr__(self, "slopes", (self.slopes,))
        object.__setattr__(self, "slopes", tuple(self.slopes))
        if isinstance(self.group, list):
            object.__setattr__(self, "group", tuple(self.group))
        if not self.columns:
            raise ValueError("RandomEffect: 'group' names no column; give at least one.")
        if not self.intercept and not self.slopes:
            raise ValueError(
                f"RandomEffect for group {self.label!r} has neither an intercept nor slopes; "
                "keep intercept=True or name a slope column."
            )
        if self.sd is not None and not (isinstance(self.sd, Real) and self.sd > 0):
            raise ValueError(
                f"RandomEffect for group {self.label!r}: sd={self.sd!r} must be a positive number "
                "(or None, to estimate it)."
            )
        self._check_weights()
        self._check_covariance()

    def _check_weights(self):
        weights = self.weights
        if weights is None or (isinstance(weights, str) and weights == EQUAL):
            return
        own = (weights,) if isinstance(weights, str | Integral) else tuple(weights)
        if len(own) != len(self.columns):
            raise ValueError(
                f"RandomEffect for group {self.label!r}: weights={weights!r} must be {EQUAL!r} or "
                f"a column of weights for each of the {len(self.columns)} columns of memberships."
            )
        object.__setattr__(self, "weights", own)

    def _check_covariance(self):
        what = f"RandomEffect for group {self.label!r}: covariance={self.covariance!r}"
        if isinstance(self.covariance, str):
            if self.covariance not in NAMED:
                names = ", ".join(map(repr, NAMED))
                raise ValueError(f"{what} is not known: give one of {names}, or an object.")
            object.__setattr__(self, "covariance", NAMED[self.covariance]())
        if self.relation is not None and self.tied:
            raise ValueError(
                f"{what} relates levels of which a row has one, and weights={self.weights!r} are "
                "of several: leave out one of the two."
            )
        if self.relation is not None and len(self.columns) > 1:
            raise ValueError(
                f"{what} relates the levels of one column, and {self.label!r} is an interaction: "
                "make a column of the labels."
            )
        if self.covariance is None or self.relation is not None:
            return
        if not isinstance(self.covariance, Covariance):
            raise TypeError(
                f"{what} is of type {type(self.covariance).__name__}: give a name, or an object of "
                "a class of sklmm.covariances, such as Unstructured(), or a Relationship."
            )
        if not self.correlated or self.sd is not None:
            other = "correlated=False" if not self.correlated else f"sd={self.sd!r}"
            raise ValueError(f"{what} stands beside {other}, which says another: leave out one.")

    @property
    def columns(self):
        """Grouping columns, a tuple: several for an interaction, or for memberships."""
        return self.group if isinstance(self.group, tuple) else (self.group,)

    @property
    def tied(self):
        """Whether a row belongs to several levels."""
        return self.weights is not None

    @property
    def weight_columns(self):
        """The columns of the memberships' weights, () where they are equal or there are none."""
        return self.weights if isinstance(self.weights, tuple) else ()

    @property
    def ordered(self):
        """Whether its covariance is along an order of its coefficients."""
        return self.relation is None and self.covariance is not None and self.covariance.ordered

    def over(self, places):
        """The `Covariance` of a level's coefficients at `places` [r], numbers in their order."""
        if self.sd is not None:
            return Pinned((float(self.sd),) * len(places))
        covariance = self.covariance
        if covariance is None or self.relation is not None:
            covariance = Unstructured() if self.correlated else Diagonal()
        if len(places) < covariance.fewest:
            raise ValueError(
                f"random_effects: the term '{self}' has {len(places)} coefficient a level, and its "
                f"covariance is between {covariance.fewest} at least: its column must have two "
                "values, and be a categorical (astype('category')) unless it is the time of ar1 or "
                "toep."
            )
        bound = covariance.over(places)
        if covariance is self.covariance and bound.n_params * bound.r**2 > LARGEST:
            raise ValueError(
                f"random_effects: the term '{self}' has {bound.r} coefficients a level and "
                f"{bound.n_params} parameters of their covariance, which are too many: take one of "
                "few parameters (ar1, or hom=TRUE), or make fewer categories or times, by rounding."
            )
        return bound

    @property
    def relation(self):
        """The `Relationship` of the levels, or None where they are independent."""
        return self.covariance if isinstance(self.covariance, Relationship) else None

    @property
    def label(self):
        """The grouping factor's name, ``a``, ``a:b`` or ``mm(a, b)``."""
        names = list(map(str, self.columns))
        return f"mm({', '.join(names)})" if self.tied else ":".join(names)

    def __str__(self):
        lhs = ["1" if self.intercept else "0", *map(str, self.slopes)]
        name = hom = ""
        if (own := self.covariance) is not None:
            name = getattr(own, "name", None) or type(own).__name__
            if name in NAMED and own != NAMED[name]():
                homogeneous = own.homogeneous if name == "diag" else not own.heterogeneous
                hom = f", hom={str(homogeneous).upper()}"
        group = self.label
        if self.weight_columns:
            group = f"{group[:-1]}, weights = cbind({', '.join(map(str, self.weight_columns))}))"
        # Of one coefficient there is no correlation: the bar is what was written.
        apart = not self.correlated or (self.sd is not None and len(lhs) - (not self.intercept) > 1)
        return f"{name}({' + '.join(lhs)} {'||' if apart else '|'} {group}{hom})"


@dataclass(frozen=True)
class LeftHand(PlainState):
    """The left-hand side of a term as it was in the fit: what a level's coefficients are of.

    `columns` are those of the table, and `coded` a `Coded` for each, None for a plain number; () is
    for numbers alone.
    """

    intercept: bool
    columns: tuple
    coded: tuple = ()

    @classmethod
    def learn(cls, table, effect, whole=True):
        """That of a `RandomEffect`, whose columns are found, on a training table or its begin."""
        if effect.ordered or not all(_is_number(table, column) for column in effect.slopes):
            from sklmm.design.left import learn_left

            return learn_left(table, effect, whole)
        return cls(effect.intercept, effect.slopes)

    @property
    def names(self):
        """Names of the coefficients."""
        names = [INTERCEPT] if self.intercept else []
        for column, coded in zip(
            self.columns, self.coded or [None] * len(self.columns), strict=True
        ):
            names += [str(column)] if coded is None else coded.names
        return tuple(names)

    @property
    def stem(self):
        """The name of the column that all coefficients are of, or ""."""
        alone = len(self.columns) == 1 and not self.intercept
        return str(self.columns[0]) if alone else ""

    @property
    def places(self):
        """Places of the coefficients: times, or numbers in their order."""
        if len(self.coded) == 1 and self.coded[0].kind == "time":
            return tuple(self.coded[0].labels.tolist())
        return tuple(map(float, range(len(self.names))))

    def loadings(self, table):
        """Z [n_rows, r] of a table, None for an intercept alone; NotSeen for new labels.

        Of one factor alone, which has a column for each category, they are `Indicators`.
        """
        if not self.columns:
            return None
        if not self.coded:
            z = numeric_columns(table, self.columns, "slope", self.intercept)
            # By rows, as the engine's kernels take a level's coefficients together.
            return np.ascontiguousarray(z)
        if len(self.columns) == 1 and not self.intercept:
            return Indicators(self.coded[0].places(table), self.coded[0].size)
        z, first = np.zeros((table.shape[0], len(self.names))), int(self.intercept)
        z[:, :first] = 1.0
        for column, coded in zip(self.columns, self.coded, strict=True):
            if coded is None:
                z[:, first] = numeric_columns(table, [column], "slope")[:, 0]
            else:
                coded.fill(z[:, first : first + coded.size], table)
            first += 1 if coded is None else coded.size
        return z


def _is_number(table, column):
    """Whether a column's type is plainly one of numbers."""
    dtype = table[column].dtype if is_frame(table) else table.dtype
    return isinstance(dtype, np.dtype) and dtype.kind in "iuf"


def parse_term(term):
    """The `RandomEffect` of each factor of an lme4 term, whose parentheses may be left out.

    Examples
    --------
    >>> from sklmm.design.terms import parse_term
    >>> [str(t) for t in parse_term("(1 | school/class)")]
    ['(1 | school)', '(1 | school:class)']
    """
    return [RandomEffect(**said) for said in read_term(term)]


def with_relationships(terms, relationships):
    """Terms as formulas write them, those of some columns alone with their `Relationship`.

    `relationships` has these by column; ValueError for one that no term has, or that stands beside
    a covariance.
    """
    out, left = [], dict(relationships)
    for term in terms:
        effects = parse_term(term)
        related = [e for e in effects if e.label in relationships and not e.tied]
        if not related:
            out.append(term)
            continue
        for effect in effects:
            if effect not in related:
                out.append(effect)
                continue
            if effect.covariance is not None:
                raise ValueError(
                    f"relationships: the term '{effect}' has a covariance of its own: leave out "
                    "one of the two."
                )
            out.append(replace(effect, covariance=relationships[effect.label]))
            left.pop(effect.label, None)
    if left:
        raise ValueError(
            f"relationships: {next(iter(left))!r} is the column of no term: write one, such as "
            f"(1 | {next(iter(left))})."
        )
    return out


def _whole_formula(formula):
    return TypeError(
        f"random_effects: {formula!r} is a whole formula: make the estimator by "
        f"from_formula({formula!r}), or name the terms' columns."
    )


def resolve_terms(random_effects, columns=()):
    """The estimator's `random_effects` as a list of `RandomEffect`.

    An entry that is one of the table's `columns` is that column, whatever it looks like.
    """
    if random_effects is None:
        return []
    if isinstance(random_effects, str) and "~" in random_effects:
        raise _whole_formula(random_effects)
    if isinstance(random_effects, str | Integral | RandomEffect):
        raise TypeError(
            f"random_effects={random_effects!r} must be a list of terms: write "
            f"[{random_effects!r}]."
        )
    terms = []
    names = set(columns)
    for entry in random_effects:
        if isinstance(entry, RandomEffect):
            terms.append(entry)
        elif isinstance(entry, str | tuple) and entry in names:
            terms.append(RandomEffect((entry,) if isinstance(entry, tuple) else entry))
        elif isinstance(entry, str) and "~" in quoted(entry)[0]:
            raise _whole_formula(entry)
        elif isinstance(entry, str) and "|" in entry:
            terms.extend(parse_term(entry))
        elif isinstance(entry, str):
            terms.append(RandomEffect(entry))
        elif isinstance(entry, Integral) and not isinstance(entry, bool):
            terms.append(RandomEffect(int(entry)))
        else:
            raise TypeError(
                f"random_effects: {entry!r} is of type {type(entry).__name__}; give a column name, "
                "a position, an lme4 term string or a RandomEffect."
            )
    return terms


def check_repeated(terms):
    """Raise ValueError where a coefficient of one factor stands in two terms (columns resolved)."""
    seen = set()
    for term in terms:
        for slope in ((None,) if term.intercept else ()) + term.slopes:
            key = (frozenset(term.columns), slope, term.ordered, term.relation, term.tied)
            if key in seen:
                what = "intercept" if slope is None else f"slope {slope!r}"
                raise ValueError(
                    f"random_effects: the {what} of {term.label!r} stands in two terms; keep one."
                )
            seen.add(key)
