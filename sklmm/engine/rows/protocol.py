"""What the engine asks of a table's rows, wherever they are.

Rows know coefficients beta [p, c] and effects b = Lambda u, [J, r, c] of each term, never theta.
All that leaves them is a sum over rows, so that rows in several places add up what each of them
answers; arrays of the size of the table stay. Rows in parts are parted by whole levels of the
term that has most effects: then a pair of levels is in one part, and `Pairs.own` and
`Pairs.squares`, which square what has been summed, are sums over parts too.
"""

from typing import NamedTuple, Protocol


class Pairs(Protocol):
    """C = Z_k^T w Z, sparse [J * r, Q], of one term and others; Q columns, whole levels of those.

    It stays with the rows: vectors go there and come back.
    """

    shape: tuple

    def down(self, flat):
        """C flat: [Q, c] goes, each level's [J * r, c] comes back from the part that has it."""

    def up(self, flat):
        """C^T flat: [J * r, c] goes, a sum [Q, c] comes back."""

    def around(self, blocks, flat):
        """C^T blocks C flat, for blocks [J, r, r] of the levels: a sum [Q, c]."""

    def own(self, blocks, place, q):
        """Diagonal blocks of C^T blocks C: a sum [J', q, q], of the columns at `place`, a slice."""

    def squares(self, e, r):
        """(S r [J * r, c], S^T e [Q, c]) for S the squared entries of C."""

    @property
    def matrix(self):
        """C, a CSR matrix in this process: what a factor of the equations is made of."""


class Coefs(NamedTuple):
    """Coefficients beta [p, C], and effects b = Lambda u of each term, [J, r, C]; or sums of them.

    C columns are as many points at once.
    """

    beta: object
    effects: tuple

    def astype(self, dtype):
        """The same in another precision."""
        effects = tuple(b.astype(dtype, copy=False) for b in self.effects)
        return Coefs(self.beta.astype(dtype, copy=False), effects)


class Inverse(Protocol):
    """C^-1 in the coefs, M = (0, Lambda) C^-1 (0, Lambda)^T, where rows read it.

    `fixed` is M's block of beta [p, p], p = 0 without; `follow` how effects give way to beta,
    [J, r, p] of each term. With beta held: `remaining` is M's block of all terms but the
    `eliminated` one (a number, or None), `rest` those terms' numbers and first places in it.
    """

    fixed: object
    follow: list
    eliminated: int | None
    rest: list
    remaining: object

    def slabs(self):
        """Slices of the eliminated term's levels, in any order of which `slab` is to be called."""

    def slab(self, levels):
        """M's blocks of some of the eliminated term's levels: own, turning and across.

        Each level's own [J', r, r], and `turning` [J', r, r] times `across` [J' * r, Q_R], those
        across to the remaining effects.
        """


class DrawnInverse(Protocol):
    """`Inverse` by draws of the effects given beta, `deviations` [J, r, n] of each term.

    Their mean square lacks what the `eliminated` term has of its own, `inner` [J, r, r].
    """

    fixed: object
    follow: list
    eliminated: int | None
    inner: object
    deviations: list


class Expansion(Protocol):
    """Rows' densities about one point: the rows keep what is as long as they are.

    value, the sum of w log f; its `score`, `Coefs` [., 1], and derivative `of_raw` [q], and their
    derivatives in raw, `Coefs` [., q] and [q, q]; `weights` and `bend`, for `at`: the curvature
    that log |C| has, and the observed one, by which the mode moves, or one object where they are
    equal.
    """

    value: float
    score: Coefs
    of_raw: object
    score_in_raw: Coefs
    raw_in_raw: object
    weights: object
    bend: object

    def leverage(self, inverse):
        """Derivatives of -log |C| / 2 through the weights, for C^-1, an `Inverse`, drawn or not.

        In eta, summed as `Coefs` [., 1], and in raw [q].
        """


class Remainder(Protocol):
    """Rows' densities about one point, in a quadratic of the predictors' deviations and the rest.

    The rows keep what is as long as they are, and see deviations of the coefs, `Coefs` [., C].
    """

    def spread(self, blocks, columns):
        """Take note of the predictors' variances, for `split`'s Laplacian.

        Of effects with covariances [J, r, r] of each term, and besides of `columns`, coefs [., f],
        times f standard normal variables.
        """

    def pull(self, coefs, tau):
        """The score of quadratic + tau rest, a sum as `Coefs`, in the coefs' precision."""

    def split(self, coefs):
        """Sums of the quadratic and of the rest [C], their scores side by side, `Coefs` [., 2 C].

        And the rest's Laplacian in normal variables of which the predictors are linear, a sum [C];
        0 where the second derivatives are not known.
        """


class Rows(Protocol):
    """The rows of a table in standard units, their terms numbered from 0.

    `at` are weights that the rows keep, or None for the table's own.
    """

    n_rows: int
    p: int
    columns: object

    def without_fixed(self):
        """The rows of a model without coefficients: p = 0."""

    def ordered(self):
        """The rows in the order in which sums of densities are quick."""

    def held(self, beta):
        """The rows of a model whose coefficients are beta [p], in the offset: p = 0."""

    def bare(self):
        """The same rows, without what they have worked out of themselves and would again."""

    def stacked(self, d):
        """Rows of `d` linear predictors, each with coefficients and effects of its own."""

    def same_levels(self, k, other):
        """Whether two terms are over one partition of the rows, however they number its parts."""

    def block_of(self, terms):
        """Z^T w Z, a sum [J, r, r], of terms over one partition, their columns side by side."""

    def blocks(self, at=None):
        """Z_k^T w Z_k of every term, sums [J, r, r]."""

    def fixed(self, at=None):
        """X^T w X, X^T w y and Z_k^T w X of every term: sums [p, p], [p] and [J, r, p]."""

    def response(self, beta):
        """y^T w y, X^T w y and Z_k^T w y of y less X beta: a number, and sums [p] and [J, r]."""

    def pairs(self, k, others, at=None):
        """`Pairs` of term k, or of none, and any others side by side; the sparse columns last."""

    def gram(self, at=None):
        """[X, Z]^T w [X, Z], dense [p + Q, p + Q]: for small tables."""

    def product(self, coefs, at=None):
        """[X, Z]^T w [X, Z] coefs, a sum as `Coefs`."""

    def evaluate(self, likelihood, coefs, raw, curvature="expected", about=None):
        """Sum of w log f [C] at coefs and raw [q, C], its score, a sum as `Coefs`, and weights.

        These are of the expected or the observed `curvature` at the first column, and stay with the
        rows. `about`, coefs and raw, is where a custom density is expanded to second order.
        """

    def scored(self, likelihood, coefs, raw):
        """Sum of w log f [C] in float64, and its score, a sum as `Coefs`, in the coefs' precision.

        As quickly as they come: for chains.
        """

    def score(self, likelihood, coefs, raw):
        """The score alone."""

    def slopes(self, likelihood, coefs, raw):
        """Sum of w log f [C], its score, a sum as `Coefs`, and its derivatives in raw [q, C]."""

    def information(self, likelihood, coefs, raw, own, shared):
        """Less the second derivatives of the sum of w log f along directions, a sum [m, m, C].

        At coefs and raw [q, C]. `own` are `Coefs` of k directions for each of the C points, [.,
        k * C]; `shared`, of s directions for all of them, whose last q go along raw too. m = k + s.
        """

    def safe(self, likelihood, coefs, raw, at):
        """Weights that make C positive: `at`, and of the expected curvature a share at least."""

    def expand(self, likelihood, coefs, raw, observed):
        """`Expansion` at coefs [., 1] and raw [q]; log |C| has the `observed` curvature or not."""

    def remainder(self, likelihood, coefs, raw, at, *, exact, held):
        """`Remainder` at coefs [., 1] and raw [q], with the weights `at` for the curvature.

        Second derivatives are known if `exact`; if `held`, deviations are of the effects alone.
        """

    def constant(self, likelihood, eta, raw):
        """At constant predictors eta [d], the sum of the curvature's weights, and X^T w eta [p]."""

    def sample(self, most):
        """At most so many observations from all over the table, as `LocalRows`."""


class Each(tuple):
    """One for each shard, in their order: a handle of what it keeps, or what it is to be given."""


class Executor(Protocol):
    """Calls plain functions where shards are; of an `Each` among the arguments each has its own.

    `n_threads` is how many shards can be asked at the same time, as things are.
    """

    def told(self, function, *arguments):
        """The answers of all shards, a list."""

    def first(self, function, *arguments):
        """The first answer that is not None, in the shards' order, or None.

        Those after it need not be asked.
        """

    def summed(self, function, *arguments):
        """The sum of the answers of all shards, by `rows.shard.added`, in an order of its own.

        The order depends on the number of shards alone.
        """

    def kept(self, function, *arguments):
        """Handles of the answers, `Each`: they stay where the shards are."""

    def joined(self, function, parts, groups, *arguments):
        """Handles of what function(a list of parts, *arguments) says of each group, `Each`.

        Groups are lists of numbers of the parts, of which the handles are given.
        """
