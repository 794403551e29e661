"""The notation of random-effect terms, read to the parameters of a `RandomEffect`.

The grammar is::

    term   := [structure] "(" lhs ("|" | "||") group ["," "hom" "=" truth] ")"
    lhs    := item ("+" item)*            item  := "1" | "0" | "-1" | column
    group  := factor ("/" factor)*        factor := column (":" column)*
    group  := "mm" "(" column ("," column)* ["," "weights" "=" "cbind" "(" column, ... ")"] ")"

``a/b`` stands for the two terms ``a`` and ``a:b``, and ``mm(a, b)`` for the levels of both columns,
to several of which a row belongs; ``||`` makes the coefficients independent, and a structure,
``us``, ``diag``, ``cs``, ``ar1`` or ``toep``, is the name of their covariance, with one variance if
``hom`` is true. The notation is lme4's (Bates, Maechler, Bolker & Walker 2015, "Fitting linear
mixed-effects models using lme4", J. Stat. Software 67(1), table 2), glmmTMB's and brms's.
"""

import re

from sklmm.covariances import NAMED, Diagonal

#: Weights of memberships that are all the same.
EQUAL = "equal"
_TERM = re.compile(
    r"^\s*(?:(?P<name>[a-zA-Z]\w*)\s*(?=\())?\(?(?P<lhs>[^|()]*)(?P<bar>\|\|?)(?P<group>[^|(),]*)"
    r"(?:,\s*hom\s*=\s*(?P<hom>\w+)\s*)?\)?\s*$"
)
#: How R and Python write truth values.
_TRUTH = {"TRUE": True, "T": True, "True": True, "FALSE": False, "F": False, "False": False}
#: Memberships, in brms's notation.
_MEMBERS = re.compile(
    r"\|\s*mm\((?P<columns>[^|()=]*?)(?:,\s*weights\s*=\s*(?:cbind\((?P<several>[^|()]*)\)|"
    r"(?P<one>[^|(),]*)))?\s*\)"
)
_NAME = re.compile(r"^[^`+*/:|()^]+$")


def quoted(text):
    """(text with a mark for each name in backquotes, those names in backquotes): for `unquoted`."""
    names = re.findall(r"`[^`]+`", text)
    marks = iter(range(len(names)))
    return re.sub(r"`[^`]+`", lambda _: f"\ue000{next(marks)}\ue001", text), names


def unquoted(text, names):
    """The text again with its names in backquotes."""
    return re.sub("\ue000(\\d+)\ue001", lambda found: names[int(found[1])], text)


def _error(term, why):
    return ValueError(
        f"random_effects: cannot read the term {term!r}: {why}. Write a column name, or an "
        "lme4 term such as '(1 + days | subject)', '(1 + days || subject)', '(0 + x | g)', "
        "'(1 | a/b)' or '(1 | a:b)'."
    )


def _name(text, term, names):
    text = text.strip()
    if not _NAME.match(text):
        text = unquoted(text, names)
        raise _error(term, f"{text!r} is not a column name" if text else "a column name is missing")
    return unquoted(text, names).strip("`")


def read_term(term):
    """What an lme4 term says of each of its factors: parameters of `RandomEffect`, a list of dicts.

    Its parentheses may be left out.

    Examples
    --------
    >>> from sklmm.design.grammar import read_term
    >>> [term["group"] for term in read_term("(1 | school/class)")]
    ['school', ('school', 'class')]
    """
    text, names = quoted(term)
    text, columns, weights = _memberships(text, term, names)
    match = _TERM.match(text)
    if match is None or text.count("(") != text.count(")"):
        raise _error(term, "it is not of the form '(coefficients | group)'")
    intercept, slopes = True, []
    for item in re.sub(r"-\s*1\b", "+0", match["lhs"]).strip().removeprefix("+").split("+"):
        match item.strip():
            case "1":
                intercept = True
            case "0":
                intercept = False
            case name:
                slopes.append(_name(name, term, names))
    if not intercept and not slopes:
        raise _error(term, "no coefficient varies")
    if len(set(slopes)) < len(slopes):
        raise _error(term, "a slope is named twice")
    known = {"slopes": slopes, "intercept": intercept, "covariance": _structure(match, term)}
    known["correlated"] = match["bar"] == "|"
    if columns:
        return [{"group": columns, "weights": weights} | known]
    terms, path = [], ()
    for factor in match["group"].split("/"):
        path += tuple(_name(column, term, names) for column in factor.split(":"))
        terms.append({"group": path[0] if len(path) == 1 else path} | known)
    return terms


def _memberships(text, term, names):
    """(The text with a name for its memberships, the columns of these, and of their weights)."""
    found = _MEMBERS.search(text)
    if found is None:
        return text, None, None
    columns = tuple(_name(column, term, names) for column in found["columns"].split(","))
    given = found["several"] or found["one"]
    weights = tuple(_name(own, term, names) for own in given.split(",")) if given else EQUAL
    return f"{text[: found.start()]}| mm{text[found.end() :]}", columns, weights


def _structure(match, term):
    """The covariance that a term's text names, None for none."""
    name, hom = match["name"], match["hom"]
    if name is None:
        if hom is not None:
            raise _error(term, "hom is of a structure, as in 'diag(0 + f | g, hom=TRUE)'")
        return None
    if name not in NAMED:
        raise _error(term, f"{name!r} is no covariance: there are {', '.join(NAMED)}")
    if match["bar"] == "||":
        raise _error(term, f"'||' is a covariance itself, beside {name}: write '|'")
    if hom is None:
        return NAMED[name]()
    homogeneous = _TRUTH.get(hom)
    if homogeneous is None or name == "us":
        raise _error(term, f"hom={hom} of {name}: it is TRUE or FALSE, of diag, cs, ar1 and toep")
    if name == "diag":
        return Diagonal(homogeneous=homogeneous)
    return NAMED[name](heterogeneous=not homogeneous)
