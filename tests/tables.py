"""Random small tables, as users might bring them: a hypothesis strategy of fits to try.

What shapes a case (sizes, types, containers, terms) is drawn by hypothesis, so that a failure
shrinks; the cells come from one drawn seed, so that 2,000 tables take little more than their fits.
"""

import importlib.util
import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import polars
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import poisson

from sklmm import Gaussian, RandomEffect

GROUPS = ("group a", "group b")
NUMBERS = ("number x", "number w", "number v")
MISSING = (None, np.nan, pd.NA, pd.NaT)


def _strings(codes):
    return np.array([f"level {c}" for c in codes], dtype=object)


def _categorical(codes, ordered=False):
    names = [f"level {c}" for c in range(int(codes.max(initial=0)) + 3)][::-1]
    return pd.Categorical(_strings(codes), categories=names, ordered=ordered)


#: Labels of codes 0, 1, ... by kind.
LABELS = {
    **{t: lambda c, t=t: (c % 100).astype(t) for t in ("int8", "int16", "uint8", "uint32")},
    **{t: lambda c, t=t: c.astype(t) for t in ("int64", "float32", "float64")},
    "half": lambda c: c / 2 - 3,
    "bool": lambda c: c % 2 == 0,
    "beyond 2^31": lambda c: c + 2**40,
    "beyond 2^53": lambda c: c + 2**60,
    "beyond 2^63": lambda c: c.astype("uint64") + np.uint64(2**63),
    "negative": lambda c: -c,
    "Int64": lambda c: pd.array(c, dtype="Int64"),
    "UInt8": lambda c: pd.array(c % 200, dtype="UInt8"),
    "Float64": lambda c: pd.array(c / 4, dtype="Float64"),
    "boolean": lambda c: pd.array(c % 2 == 0, dtype="boolean"),
    "object of strings": _strings,
    "str": lambda c: pd.array(_strings(c), dtype="str"),
    "string": lambda c: pd.array(_strings(c), dtype="string"),
    "empty and odd strings": lambda c: np.array(["", "é:|", " ", "nan", *map(str, range(200))])[c],
    "category": _categorical,
    "ordered category": lambda c: _categorical(c, ordered=True),
    "category of integers": lambda c: pd.Categorical(c, categories=np.arange(c.max(initial=0) + 9)),
    "datetime": lambda c: pd.to_datetime(c, unit="D"),
    "datetime of a zone": lambda c: pd.to_datetime(c, unit="h", utc=True).tz_convert("Asia/Tokyo"),
    "timedelta": lambda c: pd.to_timedelta(c, unit="h"),
    "period": lambda c: pd.PeriodIndex.from_ordinals(c, freq="M"),
    "cut": lambda c: pd.cut(c, [-1, 0, 2, 4, 9, 300]),
    "interval": lambda c: pd.IntervalIndex.from_arrays(c, c + 1),
    "date": lambda c: np.array([date.fromordinal(1000 + int(k)) for k in c], dtype=object),
    "decimal": lambda c: np.array([Decimal(int(k)) / 4 for k in c], dtype=object),
    "object of integers": lambda c: c.astype(object),
}
#: Labels that no model takes.
BAD_LABELS = {
    "integers and strings": lambda c: np.array(
        [int(k) if k % 2 else f"level {k}" for k in c], dtype=object
    ),
    "lists": lambda c: pd.Series([[int(k)] for k in c], dtype=object),
    "complex": lambda c: c + 1j * c,
    "tuples": lambda c: pd.Series([(int(k), 0) for k in c], dtype=object),
}


def _odd_ones(x):
    return pd.Series([f"{v:.3f}" for v in x], dtype=object)


#: Numeric columns by kind, from standard normal numbers.
COLUMNS = {
    "float64": lambda x: x,
    "float32": lambda x: x.astype("float32"),
    "float16": lambda x: x.astype("float16"),
    **{t: lambda x, t=t: np.round(9 * x).astype(t) for t in ("int8", "int16", "int32", "int64")},
    "uint8": lambda x: np.round(9 * np.abs(x)).astype("uint8"),
    "bool": lambda x: x > 0,
    "Int64": lambda x: pd.array(np.round(9 * x), dtype="Int64"),
    "Float64": lambda x: pd.array(x, dtype="Float64"),
    "boolean": lambda x: pd.array(x > 0, dtype="boolean"),
    "object of floats": lambda x: x.astype(object),
    "constant": lambda x: np.full(len(x), 3.0),
    "zero": lambda x: np.zeros(len(x)),
    "far from zero": lambda x: x + 1e6,
    "large": lambda x: 1e12 * x,
    "small": lambda x: 1e-12 * x,
    "beyond 2^53": lambda x: np.round(x * 10).astype("int64") + 2**60,
    "one row apart": lambda x: np.where(np.arange(len(x)) == 0, 1e6, 0.0),
}
BAD_COLUMNS = {
    "numeric strings": _odd_ones,
    "words": lambda x: np.array(["low", "high"], dtype=object)[(x > 0).astype(int)],
    "datetime": lambda x: pd.to_datetime(np.round(x * 9), unit="D"),
    "timedelta": lambda x: pd.to_timedelta(np.round(x * 9), unit="D"),
    "category": lambda x: pd.Categorical(np.where(x > 0, "low", "high")),
    "complex": lambda x: x + 1j,
    "infinite": lambda x: np.where(x > 1, np.inf, x),
    "huge": lambda x: 1e300 * x,
    "lists": lambda x: pd.Series([[v] for v in x], dtype=object),
}
if importlib.util.find_spec("pyarrow"):
    LABELS["arrow integers"] = lambda c: pd.array(c, dtype="int64[pyarrow]")
    LABELS["arrow strings"] = lambda c: pd.array(_strings(c), dtype="string[pyarrow]")
    COLUMNS["arrow doubles"] = lambda x: pd.array(x, dtype="double[pyarrow]")

#: Responses by kind, from the linear predictor and the noise.
RESPONSES = {
    "gaussian": lambda eta, e: eta + e,
    "no effects": lambda eta, e: e,
    "much noise": lambda eta, e: eta + 1e4 * e,
    "little noise": lambda eta, e: eta + 1e-4 * e,
    "hardly any noise": lambda eta, e: eta + 1e-8 * e,
    "no noise": lambda eta, e: eta,
    "constant": lambda eta, e: np.full(len(e), 2.5),
    "zero": lambda eta, e: np.zeros(len(e)),
    "large": lambda eta, e: 1e12 * (eta + e),
    "small": lambda eta, e: 1e-12 * (eta + e),
    "far from zero": lambda eta, e: 1e8 + eta + e,
    "integer": lambda eta, e: np.round(3 * (eta + e)).astype(int),
    "bool": lambda eta, e: eta + e > 0,
    "Int64": lambda eta, e: pd.array(np.round(3 * (eta + e)), dtype="Int64"),
    "Float64": lambda eta, e: pd.array(eta + e, dtype="Float64"),
    "float32": lambda eta, e: (eta + e).astype("float32"),
    "object": lambda eta, e: (eta + e).astype(object),
    "outlier": lambda eta, e: np.where(np.arange(len(e)) == 0, 1e9, eta + e),
}
BAD_RESPONSES = {
    "huge": lambda eta, e: 1e300 * (eta + e),
    "tiny": lambda eta, e: 1e-300 * (eta + e),
    "nan": lambda eta, e: np.where(e > 1, np.nan, eta),
    "NA": lambda eta, e: pd.array(np.where(e > 1, np.nan, np.round(eta)), dtype="Int64"),
    "None": lambda eta, e: np.where(e > 1, None, eta),
    "infinite": lambda eta, e: np.where(e > 1, np.inf, eta),
    "words": lambda eta, e: np.array(["low", "high"], dtype=object)[(e > 0).astype(int)],
    "datetime": lambda eta, e: pd.to_datetime(np.round(e), unit="D"),
    "complex": lambda eta, e: eta + 1j * e,
    "two columns": lambda eta, e: np.column_stack([eta, e]),
    "too short": lambda eta, e: (eta + e)[:-1],
    "missing": lambda eta, e: None,
}
WEIGHTS = {
    "none": lambda u: None,
    "integers": lambda u: np.floor(4 * u).astype(int) + 1,
    "zeros": lambda u: np.floor(3 * u),
    "fractions": lambda u: 0.5 + u,
    "nullable": lambda u: pd.array(np.floor(3 * u) + 1, dtype="Int64"),
    "uneven": lambda u: 10.0 ** np.round(6 * u),
    "large": lambda u: 1e12 * u,
    "list": lambda u: list(1 + u),
    "series": lambda u: pd.Series(1 + u, index=np.arange(len(u))[::-1]),
    "number": lambda u: 2,
}
BAD_WEIGHTS = {
    "negative": lambda u: u - 0.5,
    "normalised": lambda u: u / max(u.sum(), 1.0),
    "tiny": lambda u: 1e-300 * u,
    "very uneven": lambda u: 10.0 ** np.round(600 * u - 300),
    "nan": lambda u: np.where(u > 0.9, np.nan, u),
    "NA": lambda u: pd.array(np.where(u > 0.9, np.nan, np.floor(9 * u)), dtype="Int64"),
    "all zero": lambda u: np.zeros(len(u)),
    "words": lambda u: np.full(len(u), "heavy"),
    "too short": lambda u: u[:-1],
}
CONTAINERS = ("pandas", "pandas", "pandas", "polars", "array", "object array", "list")
INDICES = ("range", "strings", "duplicates", "two levels", "dates")
PARAMETERS = st.fixed_dictionaries(
    {
        "e_step": st.sampled_from(["auto", "exact", "cg"]),
        "method": st.sampled_from(["auto", "reml", "ml"]),
        "fit_intercept": st.sampled_from([True, True, False]),
    },
)
ODD_PARAMETERS = (
    {"family": Gaussian(sigma=1.0)},
    {"family": Gaussian(sigma=1e-6)},
    {"max_iter": 2},
    {"warm_start": True},
    {"fixed_effects": []},
    {"tol": 1e-9},
)


@dataclass
class Case:
    """A fit to try: the estimator's parameters, its table, and another to predict."""

    parameters: dict
    X: object
    y: object
    weight: object
    new: object
    damaged: bool

    @property
    def names(self):
        """What an error may name: the table's columns, by position where it has no names."""
        columns = getattr(self.X, "columns", None)
        if columns is None:
            return r"(column|factor)(\(s\))? '?\d"
        return "|".join(map(re.escape, columns))


def _rarely(draw, times):
    """True once in so many times; hypothesis likes the ends of a range, and 0 to shrink to."""
    return draw(st.integers(0, times - 1)) == times // 2


def _often(draw, good, bad):
    """A value of `good`, once in a while one of `bad`."""
    kinds = bad if _rarely(draw, 40) else good
    return kinds[draw(st.sampled_from(list(kinds)))]


def _with_missing(draw, rng, series):
    cells = rng.random(len(series)) < 0.1
    if draw(st.booleans()):
        return series.mask(cells)
    out = series.astype(object)
    out[cells] = MISSING[draw(st.integers(0, len(MISSING) - 1))]
    return out


@st.composite
def terms(draw, groups, numbers):
    """Random-effect terms of up to two grouping columns: names, strings, objects."""
    out = []
    if len(groups) == 2 and draw(st.integers(0, 3)) == 0:
        a, b = (f"`{g}`" for g in groups)
        return [draw(st.sampled_from([f"(1 | {a}/{b})", f"(1 | {a}:{b})"]))]
    for g in groups:
        slopes = (
            draw(st.lists(st.sampled_from(numbers), max_size=2, unique=True)) if numbers else []
        )
        lhs = " + ".join([draw(st.sampled_from(["1", "0"])) if slopes else "1", *slopes])
        kind = draw(st.integers(0, 9))
        if not slopes and kind < 6:
            out.append(g)
        elif kind < 8:
            out.append(f"({lhs} | `{g}`)")
        elif kind < 9:
            out.append(f"({lhs} || `{g}`)")
        else:
            out.append(RandomEffect(g, slopes, sd=draw(st.sampled_from([None, 0.5, 1e-9, 1e9]))))
    return out


def _positions(term, columns):
    """A term by positions, for tables without names."""
    if isinstance(term, str) and "|" not in term:
        return columns.index(term)
    if isinstance(term, RandomEffect):
        return RandomEffect(
            columns.index(term.group), [columns.index(s) for s in term.slopes], sd=term.sd
        )
    from sklmm.design.terms import parse_term

    return [
        RandomEffect(
            tuple(columns.index(c) for c in t.columns),
            [columns.index(s) for s in t.slopes],
            t.intercept,
            t.correlated,
        )
        for t in parse_term(term)
    ]


def _contain(kind, frame):
    """The table in another container; the frame where that has no such type."""
    if kind == "polars":
        try:
            return polars.DataFrame(
                {
                    name: polars.Series(
                        name, [None if _is_missing(v) else v for v in frame[name]], strict=False
                    )
                    for name in frame
                }
            )
        except (TypeError, ValueError, polars.exceptions.PolarsError):
            return frame
    if kind == "array" and all(pd.api.types.is_numeric_dtype(t) for t in frame.dtypes):
        return frame.to_numpy(float, na_value=np.nan) if not _complex(frame) else frame.to_numpy()
    if kind in ("array", "object array"):
        return frame.to_numpy(object)
    return frame.to_numpy(object).tolist() if kind == "list" else frame


def _complex(frame):
    return any(t.kind == "c" for t in frame.dtypes)


def _is_missing(value):
    return not isinstance(value, list) and pd.isna(value)


def _index(kind, n):
    match kind:
        case "strings":
            return pd.Index([f"row {i}" for i in range(n)], dtype=object)
        case "duplicates":
            return pd.Index(np.arange(n) // 2)
        case "two levels":
            return pd.MultiIndex.from_arrays([np.arange(n) // 3, np.arange(n) % 3])
        case "dates":
            return pd.date_range("2020-01-01", periods=n)
    return pd.RangeIndex(n)


@st.composite
def cases(draw):
    """A `Case` of a Gaussian model."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 9) if _rarely(draw, 10) else st.integers(10, 200))
    groups = () if _rarely(draw, 15) else GROUPS[: draw(st.integers(1, 2))]
    numbers = NUMBERS[: draw(st.integers(0, 3))]
    columns, eta = {}, np.zeros(n)
    for g in groups:
        levels = draw(st.one_of(st.integers(2, 30), st.integers(2, 200)))
        if _rarely(draw, 15):
            levels = draw(st.sampled_from([1, max(n, 1)]))
        codes = rng.permutation(np.arange(n) % levels)
        if draw(st.booleans()):
            codes = rng.integers(levels, size=n)
        eta = eta + rng.normal(size=levels)[codes]
        columns[g] = pd.Series(_often(draw, LABELS, BAD_LABELS)(codes))
    for name in numbers:
        x = rng.normal(size=n)
        eta = eta + rng.normal() * x
        columns[name] = pd.Series(_often(draw, COLUMNS, BAD_COLUMNS)(x))
    if len(numbers) > 1 and _rarely(draw, 10):
        columns[numbers[1]] = columns[numbers[0]].copy()
    damaged = bool(columns) and _rarely(draw, 15)
    if damaged:
        column = draw(st.sampled_from(list(columns)))
        columns[column] = _with_missing(draw, rng, columns[column])
    frame = pd.DataFrame(columns, index=pd.RangeIndex(n))
    if _rarely(draw, 10):
        frame = frame[list(frame)[::-1]]
    parameters = draw(PARAMETERS)
    if _rarely(draw, 10):
        parameters |= draw(st.sampled_from(ODD_PARAMETERS))
    parameters["random_effects"] = draw(terms(groups, numbers))
    kind = draw(st.sampled_from(CONTAINERS))
    if kind not in ("pandas", "polars"):
        names, entries = list(frame), []
        for term in parameters["random_effects"]:
            found = _positions(term, names)
            entries += found if isinstance(found, list) else [found]
        parameters["random_effects"] = entries
    y = _often(draw, RESPONSES, BAD_RESPONSES)(eta, rng.normal(size=n))
    weight = _often(draw, WEIGHTS, BAD_WEIGHTS)(rng.random(n))
    new = frame.iloc[rng.integers(n, size=7 if n else 0)]
    frame.index = _index(draw(st.sampled_from(INDICES)), n)
    if len(frame.columns) > 1 and _rarely(draw, 30):
        frame.columns = new.columns = [frame.columns[0]] * 2 + list(frame.columns[2:])
        kind = "pandas"
    return Case(parameters, _contain(kind, frame), y, weight, _contain(kind, new), damaged)


VARYING = {k: v for k, v in COLUMNS.items() if k not in ("constant", "zero", "far from zero")}
#: Classes and counts by kind, from the linear predictor and uniforms.
CLASSES = {
    "bool": lambda eta, u: u < expit(eta),
    "strings": lambda eta, u: np.where(u < expit(eta), "yes", "no"),
    "integers": lambda eta, u: np.where(u < expit(eta), 7, -3),
    "nullable": lambda eta, u: pd.array(u < expit(eta), dtype="boolean"),
    "category": lambda eta, u: pd.Categorical(np.where(u < expit(eta), "yes", "no")),
    "separated": lambda eta, u: eta > 0,
    "rare": lambda eta, u: np.arange(len(u)) == 5,
    "one class": lambda eta, u: np.ones(len(u), int),
    "continuous": lambda eta, u: eta,
    "missing": lambda eta, u: np.where(u < 0.1, None, "yes"),
    "nan": lambda eta, u: np.where(u < 0.1, np.nan, 1.0),
}
COUNTS = {
    "counts": lambda eta, u: poisson.ppf(u, np.exp(eta)),
    "integers": lambda eta, u: poisson.ppf(u, np.exp(eta)).astype(int),
    "bool": lambda eta, u: u < 0.5,
    "nullable": lambda eta, u: pd.array(poisson.ppf(u, np.exp(eta)), dtype="Int64"),
    "zero": lambda eta, u: np.zeros(len(u)),
    "one alone": lambda eta, u: (np.arange(len(u)) == 5).astype(int),
    "many": lambda eta, u: np.round(1e6 * np.exp(eta)),
    "very many": lambda eta, u: np.round(1e12 * np.exp(eta)),
    "steep": lambda eta, u: np.round(np.exp(12 * eta)),
    "negative": lambda eta, u: np.round(eta),
    "fractions": lambda eta, u: np.exp(eta),
    "huge": lambda eta, u: np.full(len(u), 1e300),
    "nan": lambda eta, u: np.where(u < 0.1, np.nan, 1.0),
}


@st.composite
def responses(draw, kinds, n=48, levels=6):
    """A `Case` of one size and of one grouping factor, for engines that compile by shape."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes, x = rng.permutation(np.arange(n) % levels), rng.normal(size=n)
    columns = {
        "group a": pd.Series(_often(draw, LABELS, BAD_LABELS)(codes)),
        "number x": pd.Series(_often(draw, VARYING, BAD_COLUMNS)(x)),
    }
    damaged = _rarely(draw, 15)
    if damaged:
        name = draw(st.sampled_from(list(columns)))
        columns[name] = _with_missing(draw, rng, columns[name])
    X = pd.DataFrame(columns)
    y = kinds[draw(st.sampled_from(list(kinds)))](rng.normal(size=levels)[codes] + x, rng.random(n))
    weight = _often(draw, WEIGHTS, BAD_WEIGHTS)(rng.random(n))
    parameters = {"random_effects": ["group a"], "e_step": "laplace"}
    return Case(parameters, X, y, weight, X.iloc[rng.integers(n, size=n)], damaged)
