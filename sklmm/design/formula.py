"""Formulas: formulaic's for the fixed part, lme4's terms in parentheses for the random one.

formulaic builds the columns, remembers levels, knots and centres in its ModelSpec, and applies them
again at predict.
"""

import re
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklmm._threads import Shared
from sklmm.design.columns import UNNAMED, raise_not_finite
from sklmm.design.grammar import quoted, unquoted
from sklmm.design.hypotheses import FormulaTerm, learn_terms
from sklmm.design.variables import C, NotSeen, Variable, factor_column, shown, uses_of

#: Errors about missing cells name the column here, so formulaic ignores them; it sees no variables
#: but those of the table.
_OPTIONS = {"na_action": "ignore", "context": {"C": C}}
_BRACKET = re.compile(r"(?:[a-zA-Z]\w*\s*)?\(")
_CBIND = re.compile(r"cbind\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)")
_OFFSET = re.compile(r"\+?\s*(?<![\w.])offset\(\s*([^()+*:,]+?)\s*\)")
#: Hints for errors in which formulaic's reason, or the formula, has a pattern.
_HINTS = (
    ("reason", r"context marker", "a bracket is not closed, or not opened"),
    ("reason", r"beyond upper and/or lower", 'write bs(..., extrapolation="extend"), so that the '
     "function goes on beyond the rows of the fit (of the other folds, in cross-validation)"),
    ("formula", r"\([^()]*\^", "within a function ^ is Python's exclusive or: write x ** 2"),
    ("formula", r"\b(as\.)?factor\(", "a factor is C(column)"),
    ("formula", r"(?<![\w.])s\(", "a smooth function of a column is bs(column, df=5) or cr(column, "
     "df=5)"),
    ("reason", r"object is not callable", "a column that the formula reads has the name of a "
     "function: rename it"),
)  # fmt: skip


@dataclass(frozen=True)
class Formula:
    """A right-hand side as it was in the fit: formulaic's ModelSpec, and the columns it names.

    `column_names` are X's, and `members` for each of them the names of the table's columns that it
    is made of, and whether one of these is a factor. `terms` and `codes` are of
    `hypotheses.learn_terms`.
    """

    text: str
    spec: object
    variables: tuple
    column_names: tuple
    members: tuple
    terms: tuple = ()
    codes: dict | None = None

    @property
    def columns(self):
        """Names of the table's columns that the formula needs."""
        return tuple(v.name for v in self.variables)

    @property
    def formula_terms(self):
        """The terms, each a `FormulaTerm`."""
        return [FormulaTerm(*own) for own in self.terms]

    def __getstate__(self):
        return vars(self) | {"spec": _state(self.spec)}

    def __setstate__(self, state):
        spec = state["spec"]
        # Another version's may be formulaic's own: the estimator's warning says so.
        self.__dict__.update(state | {"spec": _restored(spec) if type(spec) is dict else spec})


def split_formula(formula):
    """(fixed formula, list of the random-effect terms) of a whole formula.

    Examples
    --------
    >>> from sklmm.design.formula import split_formula
    >>> split_formula("y ~ x * z + (1 + x | g) + (1 | h)")
    ('y ~ x * z', ['(1 + x | g)', '(1 | h)'])
    >>> split_formula("y ~ (1 | g)")
    ('y ~ 1', ['(1 | g)'])
    """
    text, names = quoted(formula)
    response, rhs = _sides(text)
    if response is None:
        raise ValueError(
            f"formula={formula!r} has no response: write 'y ~ x + (1 | g)', y a column."
        )
    if text.count("(") != text.count(")"):
        raise ValueError(f"formula={formula!r}: a bracket is not closed, or not opened.")
    fixed, terms = _apart(rhs)
    terms = [unquoted(term, names) for term in terms]
    fixed = fixed.strip().removeprefix("+").strip() or "1"
    inner = [term for term in terms if "(" in term.partition("(")[2].partition("|")[0]]
    if "|" in fixed or inner:
        what, why = fixed, "has a bar outside of a random-effect term such as '(1 + x | g)'"
        if inner:
            what, why = inner[0], "has a function before its bar"
        raise ValueError(
            f"formula={formula!r}: {unquoted(what, names)!r} {why}; a term's coefficients are "
            "columns, no functions of them."
        )
    return unquoted(f"{response} ~ {' '.join(fixed.split())}", names), terms


def _apart(rhs):
    """(rhs without its random-effect terms, those terms): brackets with a bar, perhaps named."""
    fixed, terms, end = "", [], 0
    for found in _BRACKET.finditer(rhs):
        if found.start() < end:
            continue
        depth, close, bar = 1, found.end(), False
        while depth and close < len(rhs):
            depth += {"(": 1, ")": -1}.get(rhs[close], 0)
            bar |= depth == 1 and rhs[close] == "|"
            close += 1
        before = rhs[end : found.start()]
        fixed += re.sub(r"\+\s*$", "", before) + " " if bar else before + rhs[found.start() : close]
        if bar:
            terms.append(rhs[found.start() : close])
        end = close
    return fixed + rhs[end:], terms


def formula_parameters(formula):
    """An estimator's parameters by a whole formula, which may have one offset(column).

    Examples
    --------
    >>> from sklmm.design.formula import formula_parameters
    >>> formula_parameters("y ~ x + offset(hours) + (1 | g)")
    {'random_effects': ['(1 | g)'], 'fixed_effects': 'y ~ x', 'offset': 'hours'}
    """
    text, names = quoted(formula)
    found = _OFFSET.findall(text)
    if len(found) == 1:
        formula = unquoted(_OFFSET.sub("", text), names)
    fixed, terms = split_formula(formula)
    offset = {"offset": unquoted(found[0], names).strip("`")} if len(found) == 1 else {}
    return {"random_effects": terms or None, "fixed_effects": fixed} | offset


def split_response(formula):
    """(response as it is written, or None, right-hand side) of a formula."""
    text, names = quoted(formula)
    response, rhs = _sides(text)
    return response and unquoted(response, names), unquoted(rhs, names)


def _sides(text):
    left, tilde, right = text.partition("~")
    return (left.strip() or None, right.strip()) if tilde else (None, text.strip())


def response_columns(response):
    """Names of a response's columns: two of ``cbind(successes, failures)``, else one."""
    text, names = quoted(response)
    found = _CBIND.fullmatch(text)
    return [unquoted(c, names).strip("`") for c in (found.groups() if found else [text])]


def is_expression(response):
    """Whether a response is written as a function of columns; a name in backquotes is none.

    Examples
    --------
    >>> from sklmm.design.formula import is_expression
    >>> is_expression("log(y)"), is_expression("`log(y)`"), is_expression("cbind(a, b)")
    (True, False, False)
    """
    text = quoted(response)[0]
    return not _CBIND.fullmatch(text) and bool(set(text) & set("(*+/:^|-"))


def learn_formula(formula, table, fit_intercept):
    """(X [n_rows, n_columns], Formula) of a right-hand side on a training table."""
    rows, uses = parsed(formula, table, fit_intercept)
    name = f"fixed_effects={formula!r}"
    _check_columns(table, uses)
    variables = tuple(Variable.learn(table, column, how) for column, how in uses.items())
    data = _data(variables, table)
    made = _evaluated(name, lambda: rows.get_model_matrix(data, output="numpy", **_OPTIONS))
    spec, members = made.model_spec, []
    kinds = {expr: kind.value for expr, (kind, _) in spec.encoder_state.items()}
    for term, _, columns in spec.structure:
        used = uses_of(term.factors, uses)
        factors = any(kinds.get(f.expr) == "categorical" for f in term.factors)
        members += [(tuple(n for n in uses if n in used), factors)] * len(columns)
    text, names = split_response(formula)[1], tuple(spec.column_names)
    terms, codes = learn_terms(spec)
    learnt = Formula(text, spec, variables, names, tuple(members), terms, codes)
    return _finite(made, names, name), learnt


def parsed(formula, table, fit_intercept=True):
    """(formulaic's formula, use by column) of a right-hand side."""
    FormulaicFormula, DefaultFormulaParser = _formulaic()
    if not isinstance(table, pd.DataFrame):
        raise ValueError(
            f"fixed_effects={formula!r}: a formula needs columns with names: give X as a "
            f"DataFrame. {UNNAMED}"
        )
    rhs, name = split_response(formula)[1], f"fixed_effects={formula!r}"
    plain = quoted(rhs)[0]
    if re.search(r"(^|[\s+(])\.($|[\s+):*])", plain):
        raise ValueError(
            f"{name}: '.' is not read: name the columns, or use fixed_effects=None, which takes "
            "all that are neither grouping columns nor the offset."
        )
    if re.search(r"(?<![\w.])offset\(", plain):
        raise ValueError(
            f"{name}: a formula has no offset(): leave it out, and name its column, computed "
            "beforehand, in the parameter offset."
        )
    one_side = ValueError(
        f"{name}: give one right-hand side, without '|': random-effect terms are those of the "
        "parameter random_effects, or of a whole formula in from_formula."
    )
    if "|" in plain:
        raise one_side
    parser = DefaultFormulaParser(include_intercept=fit_intercept)
    terms = _evaluated(name, lambda: FormulaicFormula(rhs, _parser=parser))
    try:
        factors = [factor for term in terms for factor in term.factors]
    except (AttributeError, TypeError) as error:
        raise one_side from error
    return terms, uses_of(factors, table.columns)


def apply_formula(formula, table):
    """The columns of a `Formula` on a new table."""
    return columns_of(formula, prepared(formula, table))


def prepared(formula, table):
    """The table's columns that a `Formula` reads, as it reads them: for `columns_of`."""
    _check_columns(table, formula.columns)
    return _data(formula.variables, table)


def columns_of(formula, data):
    """The columns of a `Formula` on `prepared` rows."""
    name = f"fixed_effects={formula.text!r}"
    made = _evaluated(
        name,
        lambda: formula.spec.get_model_matrix(data, **_OPTIONS),
        on_unseen=lambda: _check_levels(formula.spec, data),
    )
    return _finite(made, formula.column_names, name)


def _data(variables, table):
    """The table that formulaic gets, of the formula's columns alone."""
    columns = {v.name: v.prepared(table) for v in variables}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


def _check_columns(table, columns):
    """Raise ValueError for columns that stand twice or have missing cells."""
    for column in columns:
        if isinstance(table[column], pd.DataFrame):
            raise ValueError(
                f"X has {table[column].shape[1]} columns of the name {column!r}, which the formula "
                "uses: give each a name of its own."
            )
    missing = [c for c in columns if table[c].isna().any()]
    if missing:
        raise_not_finite(missing, "fixed-effects", "NaN")


def _state(spec):
    """A ModelSpec as plain data: its terms, and what its transforms and factors have learnt.

    formulaic keeps the contrasts for introspection alone, and finds the structure again.
    """
    terms = [[(f.expr, f.eval_method.value) for f in term.factors] for term in spec.formula]
    learnt = {
        factor: (kind.value, _without_contrasts(state))
        for factor, (kind, state) in spec.encoder_state.items()
    }
    return {"terms": terms, "transforms": spec.transform_state, "factors": learnt}


def _restored(state):
    """The ModelSpec of a `_state`."""
    Formula, _ = _formulaic()
    from formulaic import ModelSpec
    from formulaic.parser.types import Factor, Term

    terms = [
        Term([Factor(expr, eval_method=method) for expr, method in term]) for term in state["terms"]
    ]
    learnt = {
        factor: (Factor.Kind(kind), known) for factor, (kind, known) in state["factors"].items()
    }
    return ModelSpec(
        Formula(terms, _ordering="none"),
        materializer="pandas",
        output="numpy",
        transform_state=state["transforms"],
        encoder_state=learnt,
    )


def _without_contrasts(state):
    if type(state) is not dict:
        return state
    return {key: _without_contrasts(part) for key, part in state.items() if key != "contrasts"}


def _formulaic():
    try:
        from formulaic import Formula
        from formulaic.parser import DefaultFormulaParser
    except ImportError as error:
        raise ImportError(
            "fixed_effects: formulas need formulaic: pip install 'sklmm[formula]', or give a list "
            "of columns."
        ) from error
    return Formula, DefaultFormulaParser


def _evaluated(name, build, on_unseen=lambda: None):
    from formulaic.errors import DataMismatchWarning, FormulaicError

    reasons = (FormulaicError, ArithmeticError, LookupError, SyntaxError, TypeError, ValueError)

    with _mismatch_raises:
        try:
            # What is infinite then is told by column, below.
            with np.errstate(all="ignore"):
                return build()
        except DataMismatchWarning as error:
            on_unseen()
            found = re.search(r"\{(.*)\}", str(error))
            raise NotSeen(f"{name}: a factor", found[1] if found else "a level") from None
        except reasons as error:
            # formulaic marks places with escape codes, on further lines.
            reason = str(error).split("\n")[0]
            texts = {"formula": name, "reason": str(error)}
            hints = [f" ({hint})" for where, what, hint in _HINTS if re.search(what, texts[where])]
            raise ValueError(f"{name}: {reason}{''.join(hints)}") from error


@contextmanager
def _raising_mismatches():
    """Have formulaic raise where it would code a level that it has not seen as the reference level.

    By a filter of its own: `warnings.catch_warnings` is no context of one thread.
    """
    from formulaic.errors import DataMismatchWarning

    before = list(warnings.filters)
    warnings.simplefilter("error", DataMismatchWarning)
    added = [own for own in warnings.filters if own not in before]
    try:
        yield
    finally:
        for own in added:
            with suppress(ValueError):
                warnings.filters.remove(own)


_mismatch_raises = Shared(_raising_mismatches)


def _check_levels(spec, table):
    """Name the column of an unseen level, where formulaic makes a factor of a column.

    `Variable` looks at those that nothing but the factor reads.
    """
    for factor, (_, state) in spec.encoder_state.items():
        column = factor_column(factor)
        if column in table and "categories" in state:
            values = table[column]
            unseen = values[~values.isin(state["categories"])]
            if len(unseen):
                raise NotSeen(f"The fixed-effects column {column!r}", shown(unseen))


def _finite(made, columns, name):
    X = np.asarray(made, dtype=np.float64)
    if not np.isfinite(X).all():
        bad = np.array(columns)[~np.isfinite(X).all(axis=0)]
        raise ValueError(
            f"{name}: {', '.join(map(repr, map(str, bad)))} is not finite: change the formula, or "
            "the rows where it is not defined."
        )
    return X
