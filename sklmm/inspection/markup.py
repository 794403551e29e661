"""Titles, lines and tables of a report as text, HTML, LaTeX and Markdown, by pandas.

A report is a list of (title or "", content), the content a list of lines or a table. A table that
has no names of rows has a `RangeIndex`.
"""

import re
from html import escape

import numpy as np
import pandas as pd

#: Below it a p value is not worth its digits, as in R.
LEAST_P = np.finfo(float).eps
#: What stands for a blank of a digit's width while cells are stripped, and that blank.
STAND_IN, BLANK = "\ue000", "\u2007"
#: What pandas leaves, and LaTeX's oldest fonts have other letters for.
LATEX = str.maketrans({"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"})
#: What Markdown would read as markup.
MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$#])")


def text_of(table):
    """The table as text."""
    return cells(table).to_string(index=_named(table))


def html_of(report):
    """The report as HTML."""
    parts = []
    for title, content in report:
        parts += [f"<h4>{escape(title)}</h4>"] if title else []
        if isinstance(content, pd.DataFrame):
            # A browser joins spaces, but not those of a digit's width, which pandas strips off
            # cells; and pandas cuts long cells.
            with pd.option_context("display.max_colwidth", None):
                own = cells(content, STAND_IN).to_html(index=_named(content))
            parts.append(own.replace(STAND_IN, BLANK))
        else:
            parts.append(f"<p>{'<br>'.join(map(escape, content))}</p>")
    return f"<div>{''.join(parts)}</div>"


def latex_of(report):
    """The report as tables of LaTeX, for a document with the packages booktabs and siunitx."""
    from pandas.io.formats.style import Styler

    parts = ["% \\usepackage{booktabs, siunitx}"]
    for title, content in report:
        lines = [title] if title else []
        lines += [] if isinstance(content, pd.DataFrame) else content
        if lines:
            styler = Styler(pd.DataFrame({"": lines})).format(escape="latex")
            styler = styler.hide(axis="index").hide(axis="columns")
            parts.append(f"\\noindent\n{_latex(styler, column_format='@{}l')}")
        if isinstance(content, pd.DataFrame):
            shown = {
                name: _latex_p if name == "p" else _latex_number
                for name in content.select_dtypes("number")
            }
            styler = Styler(content.rename_axis(None)).format(shown, na_rep="", escape="latex")
            styler = styler.format_index(escape="latex").format_index(escape="latex", axis=1)
            styler = styler if _named(content) else styler.hide(axis="index")
            parts.append(f"\\noindent\n{_latex(styler, siunitx=True, hrules=True)}")
    return "\n\n".join(parts)


def _latex(styler, **options):
    return styler.to_latex(**options).strip().translate(LATEX)


def markdown_of(report):
    """The report as Markdown, with tables of pipes."""
    parts = []
    for title, content in report:
        parts += [f"**{_marked(title)}**"] if title else []
        if isinstance(content, pd.DataFrame):
            numbers = set(content.select_dtypes("number"))
            own = cells(content, STAND_IN).rename(index=_marked, columns=_marked)
            texts = [name for name in content if name not in numbers]
            own = own.assign(**{_marked(t): own[_marked(t)].map(_marked) for t in texts})
            align = ["right" if name in numbers else "left" for name in content]
            align = ["left", *align] if _named(content) else align
            own = own.rename_axis(None).to_markdown(
                index=_named(content), disable_numparse=True, colalign=align
            )
            parts.append(own.replace(STAND_IN, BLANK))
        else:
            parts.append("  \n".join(map(_marked, content)))
    return "\n\n".join(parts)


def cells(table, blank=" "):
    """The table as text: numbers of five digits, each column's aligned by their decimal points."""
    numbers = table.select_dtypes("number")
    shown = {
        name: _aligned(numbers[name], _p_value if name == "p" else _number, blank)
        for name in numbers
    }
    return table.assign(**shown).fillna("").astype(str)


def _aligned(values, shown, blank):
    texts = ["" if np.isnan(value) else shown(value) for value in values]
    before = [re.search(r"[.e]|$", text).start() for text in texts]
    most = max(before, default=0)
    texts = [
        blank * (most - k) + text if text else "" for k, text in zip(before, texts, strict=True)
    ]
    width = max(map(len, texts), default=0)
    return [text.ljust(width, blank) if text else "" for text in texts]


def _named(table):
    """Whether the table's rows have names."""
    return not isinstance(table.index, pd.RangeIndex)


def _number(value):
    return f"{value:#.5g}"


def _p_value(p):
    return f"<{LEAST_P:.2g}" if p < LEAST_P else f"{p:.3g}"


def _latex_number(value):
    # siunitx takes what is in braces for text.
    return _number(value) if np.isfinite(value) else f"{{{value}}}"


def _latex_p(p):
    return f"{{{_p_value(p)}}}" if p < LEAST_P else _p_value(p)


def _marked(text):
    return MARKDOWN.sub(r"\\\1", str(text))
