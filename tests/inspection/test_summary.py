"""What `summary` says, as text and in a notebook."""

import pickle
import re
import sys

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor, RandomEffect, anova


def test_summary_reports_what_lme4s_does(sleep_model):
    text = sleep_model.summary()
    for part in (
        "REML",
        "(1 + Days | Subject)",
        "24.74",
        "5.92",
        "25.59",
        "251.4",
        "10.467",
        "1743.6",
    ):
        assert part in text
    assert "Number of obs: 180, groups: Subject, 18" in text
    # p values as R prints them: none below machine epsilon, others to three digits.
    p = sleep_model.fixed_effects_["p"]
    assert p["Intercept"] < 1e-16 < p["Days"]
    assert "<2.2e-16" in text
    assert f"{p['Days']:.3g}" in text


def test_a_notebook_shows_the_summary_as_tables(sleep_model):
    text = sleep_model.summary()
    html = text._repr_html_()
    assert html.count("<table") == html.count("</table>") == 2
    fixed, random = sleep_model.fixed_effects_, sleep_model.variance_components_
    assert html.count("<tr") == len(fixed) + 2 + len(random) + 1
    for part in ("REML", "251.41", "25.592", "Subject, 18", "REML criterion 1743.6283"):
        assert part in html
    X, y = pd.DataFrame({"<g>": np.arange(40) % 8}), np.random.default_rng(0).normal(size=40)
    named = MixedEffectsRegressor(["<g>"]).fit(X, y)
    assert "<g>" not in named.summary()._repr_html_()
    with pd.option_context(
        "display.max_columns", 2, "display.max_colwidth", 5, "display.width", 20
    ):
        again = sleep_model.summary()
    assert (again, again._repr_html_()) == (text, html)
    assert pickle.loads(pickle.dumps(text))._repr_html_() == html


def test_a_summary_aligns_numbers_by_their_decimal_points(sleep_model):
    lines = sleep_model.summary().splitlines()
    first = lines.index("Random effects:") + 2
    sds = [line for line in lines[first : first + 4] if "," not in line]
    fixed = lines[lines.index("Fixed effects:") + 3 :][:2]
    assert [line.split()[0] for line in fixed] == ["Intercept", "Days"]
    # In a notebook by blanks of a digit's width.
    html = sleep_model.summary()._repr_html_()
    assert "<td>251.41\u2007</td>" in html
    assert "<td>\u200710.467</td>" in html
    for rows in (sds, fixed):
        places = [[k for k, letter in enumerate(line) if letter == "."] for line in rows]
        assert places.count(places[0]) == len(places)


def test_a_summary_shows_a_formula_as_it_was_written_and_all_digits_of_large_counts():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(80) % 4, "h": np.arange(80) % 3, "x": rng.normal(size=80)})
    y = pd.Series(rng.normal(size=4)[X["g"]] + rng.normal(size=80), name="visits")
    weight = np.full(80, 1234567 / 80)
    for formula, shown in {
        "n ~ x * C(h)": "n ~ 1 + x * C(h) + (1 | g)",
        "~ x-1": "visits ~ x-1 + (1 | g)",
        "0 + C(h)": "visits ~ 0 + C(h) + (1 | g)",
    }.items():
        model = MixedEffectsRegressor(["g"], fixed_effects=formula, method="ml", e_step="cg")
        lines = model.fit(X, y, weight).summary().splitlines()
        assert lines[:2] == [
            "Linear mixed model fit by maximum likelihood (conjugate gradients)",
            shown,
        ]
        plural = "iterations" if model.n_iter_ > 1 else "iteration"
        assert lines[2].endswith(f"({model.n_iter_} {plural})")
        assert "Number of obs: 1234567, groups: g, 4" in lines
    plain = MixedEffectsRegressor(fixed_effects=["x"]).fit(X, y.to_numpy(), weight / 3)
    lines = plain.summary().splitlines()
    assert lines[:2] == ["Linear model fit by REML", "y ~ 1 + x"]
    assert lines[2].endswith("(1 iteration)")
    assert "Number of obs: 411522.3333, groups: none" in lines


def test_tables_show_all_of_their_columns(sleepstudy, sleep_model):
    X, y = sleepstudy
    plain, slopes = (
        MixedEffectsRegressor([term], fixed_effects=["Days"], method="ml").fit(X, y)
        for term in ("Subject", "(1 + Days | Subject)")
    )
    tables = [
        sleep_model.fixed_effects_,
        sleep_model.fixed_effects_.assign(another=1.0).round(2),
        sleep_model.variance_components_,
        anova(plain, slopes),
    ]
    with pd.option_context("display.max_columns", 2, "display.width", 30):
        for table in tables:
            text, html = repr(table).splitlines(), table._repr_html_()
            assert all(name in text[0] and name in html for name in table.columns)
            assert "..." not in "".join(text)
            assert len({len(line) for line in text}) == 1


@pytest.fixture(scope="module")
def awkward():
    """A model whose names are markup, with a text of every kind in its summary."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a_b|50%": rng.normal(size=80), "<g>": np.arange(80) % 8, "h": 0.0})
    y = pd.Series(3 * X["a_b|50%"] + rng.normal(size=8)[X["<g>"]] + rng.normal(size=80), name="$y")
    return MixedEffectsRegressor(
        [RandomEffect("<g>", slopes=["a_b|50%"])],
        fixed_effects=["a_b|50%"],
        dispersion=["a_b|50%"],
    ).fit(X, y)


def test_latex_has_tables_of_whole_rows(sleep_model, awkward):
    pytest.importorskip("jinja2")
    for model in (sleep_model, awkward):
        latex = model.summary().to_latex()
        tables = re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", latex, re.DOTALL)
        assert len(tables) == latex.count("{tabular}") / 2
        for columns, body in tables:
            n = len(columns.removeprefix("@{}"))
            rows = [row for row in body.splitlines() if row.endswith(r"\\")]
            assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {n - 1}
        # Nothing of the table is markup of LaTeX's.
        assert not re.search(r"(?<!\\)[_%$#]|[|<>~^]", latex.partition("\n")[2])
        assert latex.count("{") == latex.count("}")
        for estimate in model.fixed_effects_["estimate"]:
            assert f"& {estimate:#.5g} &" in latex
    assert r"\textless{}g\textgreater{}" in latex
    assert r"a\_b\textbar{}50\%" in latex
    # What is no number is text for siunitx.
    assert r"{\textless{}2.2e-16}" in sleep_model.summary().to_latex()


def test_markdown_has_tables_of_whole_rows(sleep_model, awkward):
    pytest.importorskip("tabulate")
    for model in (sleep_model, awkward):
        markdown = model.summary().to_markdown()
        tables = [part for part in markdown.split("\n\n") if part.startswith("|")]
        assert len(tables) == 2 + (model is awkward)
        for table in tables:
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
            # The digits of a column stand below each other.
            assert len(set(map(len, table.splitlines()))) == 1
        for estimate in model.fixed_effects_["estimate"]:
            assert f"{estimate:#.5g}" in markdown
    assert r"\<g\>" in markdown
    assert r"a\_b\|50%" in markdown


@pytest.mark.parametrize(
    ("method", "module"), [("to_latex", "jinja2"), ("to_markdown", "tabulate")]
)
def test_markup_says_what_it_needs(sleep_model, monkeypatch, method, module):
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("pandas.io.formats.style", "pandas.io.formats.style_render"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=rf"{module}: pip install 'sklmm\[reports\]'"):
        getattr(sleep_model.summary(), method)()
