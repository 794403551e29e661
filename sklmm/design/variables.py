"""Columns that a formula names: numbers in float64, labels as categories, the same at predict.

R's rules, which formulaic leaves to its caller. A number is a number in whatever type a column
holds it (narrow integers' products would wrap, and pandas has numbers as objects beside a missing
one); a string, a category or a boolean is a factor. A factor has the levels that the rows of the
fit have, and another one at predict is an error.
"""

import ast
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklmm._state import PlainState
from sklmm.design.columns import reads_as_number
from sklmm.design.levels import NUMBERS, conformed, find, kind_of, plain

#: Integers of this size and above are not all exact as floats.
WHOLE = 2**53
_NAME = r"`[^`]+`|[^\W\d]\w*"
_FACTOR = re.compile(rf"C\(\s*({_NAME})\s*(?:,(.*))?\)", re.DOTALL)
#: Modules whose functions formulaic's expressions may call, `np.log` and `contr.sum`.
_MODULES = ("np", "contr")
_TIMES = ("date", "datetime", "datetime with a time zone", "timedelta")


@dataclass(frozen=True)
class Variable(PlainState):
    """A column that a formula names, as it was in the fit.

    `levels` are a factor's, in order; None of a number, and of what only functions take.
    """

    name: str
    kind: str
    levels: pd.Index | None
    uses: tuple

    @property
    def called(self):
        """What error messages call the column."""
        return f"fixed-effects column {self.name!r}"

    @classmethod
    def learn(cls, table, name, uses):
        """The variable of a training table; `uses` are those of `uses_of`."""
        self = cls(name, "", None, tuple(sorted(uses)))
        values = _index(table[name])
        kind = kind_of(values, self.called)
        levels = None
        if _is_factor(values, kind, uses):
            levels = pd.factorize(values, sort=True)[1]
            levels = plain(levels) if isinstance(levels, pd.CategoricalIndex) else levels
        if levels is None and "bare" in uses:
            self._check_bare(kind, values)
        if levels is not None and kind == "string" and "bare" in uses:
            self._check_digits(values, levels)
        return cls(name, kind, levels, self.uses)

    def prepared(self, table):
        """The column as formulaic is to have it.

        TypeError and ValueError are for another kind than the fit's, and levels that it had not.
        """
        values = _index(table[self.name])
        if self.levels is not None:
            return self._factor(values)
        if self.kind in (*NUMBERS, "boolean"):
            return self._numbers(values)
        kind = kind_of(values, self.called) if len(values) else self.kind
        if kind != self.kind:
            raise TypeError(
                f"The {self.called} has values of kind {kind}, and had values of kind {self.kind} "
                "when the model was fitted: convert it."
            )
        values = table[self.name].array
        if isinstance(values, pd.Categorical):
            return values.remove_unused_categories()
        return values.astype(object) if isinstance(values.dtype, pd.StringDtype) else values

    def _factor(self, values):
        places = find(self.levels, self.kind, values, self.called)
        if (places < 0).any():
            raise NotSeen(f"The {self.called}", shown(values[places < 0]))
        return pd.Categorical.from_codes(places, self.levels)

    def _numbers(self, values):
        if self.kind == "boolean" and len(values):
            return np.asarray(conformed(values, self.kind, pd.Index([False, True]), self.called))
        kind = kind_of(values, self.called) if len(values) else self.kind
        if kind not in (*NUMBERS, "boolean"):
            values = values[:1].tolist()[0]
            raise TypeError(
                f"The {self.called} holds {values!r}, of kind {kind}, and had numbers when the "
                "model was fitted: convert it, with astype(float) for example."
            )
        numbers = plain(values).to_numpy()
        if numbers.dtype.kind in "iu" and "C" in self.uses and abs(numbers).max(initial=0) >= WHOLE:
            return numbers
        return numbers.astype(np.float64)

    def _check_bare(self, kind, values):
        if kind in _TIMES:
            days = f"(X[{self.name!r}] - X[{self.name!r}].min()).dt.days"
            raise TypeError(
                f"The {self.called} holds {values[:1].tolist()[0]!r}, of kind {kind}, which is no "
                f"number and no label: make a number of it, {days} for example, or a factor, "
                f"C(`{self.name}`)."
            )

    def _check_digits(self, values, levels):
        if not isinstance(values, pd.CategoricalIndex) and all(map(reads_as_number, levels)):
            raise TypeError(
                f"The {self.called} holds strings of digits, like {levels[0]!r}: convert them to "
                f"numbers, with astype(float), or write C(`{self.name}`) for a factor."
            )


def uses_of(factors, columns):
    """How formulaic's factors use each column: {name: {"bare", "C", "call"}}.

    "bare" is by itself, "C" as the first argument of C(), "call" in any other expression.
    """
    uses = {}
    for factor in factors:
        expression = factor.expr
        if factor.eval_method.value == "lookup":
            uses.setdefault(expression, set()).add("bare")
        elif factor.eval_method.value == "python":
            if found := _FACTOR.fullmatch(expression):
                uses.setdefault(found[1].strip("`"), set()).add("C")
                expression = f"C({found[2] or ''})"
            for name in _names(expression):
                uses.setdefault(name, set()).add("call")
    return {name: how for name, how in uses.items() if name in columns}


def factor_column(expression):
    """The column that a factor is made of, its name or the first argument of C()."""
    found = _FACTOR.fullmatch(expression)
    return (found[1] if found else expression).strip("`")


class NotSeen(ValueError):
    """Labels, as text, that have no coefficient; `what` holds them, and `otherwise` is a remedy."""

    def __init__(
        self, what, labels, otherwise="make the column a grouping factor in random_effects"
    ):
        super().__init__(self._text(what, labels, otherwise))
        self.what, self.labels, self.otherwise = what, labels, otherwise

    @staticmethod
    def _text(what, labels, otherwise):
        return (
            f"{what} holds {labels}, not seen when the model was fitted: there is no coefficient "
            f"for it. Replace such labels, fit with rows that have them, or {otherwise}."
        )

    def __reduce__(self):
        # By its own arguments: joblib's processes send errors.
        return type(self), (self.what, self.labels, self.otherwise)


class NewTime(NotSeen):
    """Times, as text, at which the memberships of a term have no effects."""

    @staticmethod
    def _text(what, labels, otherwise):
        return (
            f"{what} holds {labels}, no time of the fit, and the effects of a term of memberships "
            "are not predicted at other times: fit with rows at such times, or give the nearest "
            "time of the fit."
        )


def shown(values):
    """The first few different ones of some values, as text."""
    values = pd.unique(values).tolist()
    return ", ".join(map(repr, values[:5])) + ", ..." * (len(values) > 5)


def C(data, *args, **kwargs):
    """formulaic's C, whose levels are integers where the numbers are whole."""
    from formulaic.transforms import C

    if isinstance(data, pd.Series) and data.dtype == np.float64 and (data == data.round()).all():
        data = data.astype(np.int64)
    return C(data, *args, **kwargs)


def _is_factor(values, kind, uses):
    if kind in NUMBERS:
        return isinstance(values, pd.CategoricalIndex) or uses == {"C"}
    return "call" not in uses and (kind not in _TIMES or "bare" not in uses)


def _index(values):
    return pd.Index(values.array, tupleize_cols=False)


def _names(expression):
    """Names of the variables in a Python expression, in which backquotes mark names.

    A function's name is none, nor that of a module of formulaic's: columns may have the same.
    """
    quoted = []

    def name(match):
        quoted.append(match[0].strip("`"))
        return f"_quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(re.sub(r"`[^`]+`", name, expression).strip(), mode="eval")
    except SyntaxError:
        return set()
    nodes = list(ast.walk(tree))
    functions = {node.func for node in nodes if isinstance(node, ast.Call)}
    modules = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    variables = {node for node in nodes if isinstance(node, ast.Name)} - functions
    found = {node.id for node in variables if node not in modules or node.id not in _MODULES}
    if any(isinstance(node, ast.Name) and node.id == "Q" for node in functions):
        # Q("name") is patsy's way to quote.
        found |= {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {quoted[int(n[8:])] if str(n).startswith("_quoted_") else n for n in found}
