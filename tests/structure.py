"""How many rooms one has to enter: the structure of the package in figures.

Run as ``python -m tests.structure``. It prints

- the modules that a fit crosses: those of sklmm in which a function runs between the call of `fit`
  and the moment its result is made;
- the rooms of the engine, and those that import each other;
- the decisions by a family's name outside `sklmm.families`;
- the classes of equations, the functions that are conjugate gradients, and the lines of code.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

import sklmm
from sklmm import MixedEffectsRegressor
from sklmm.result import EMResult

PACKAGE = Path(sklmm.__file__).parent


def table():
    """X of 300 rows with two crossed factors, a Gaussian and a Poisson response."""
    rng = np.random.default_rng(0)
    g, h = rng.integers(0, 20, 300), rng.integers(0, 15, 300)
    X = pd.DataFrame({"x": rng.normal(size=300), "g": g, "h": h})
    eta = 0.3 * X["x"] + 0.3 * rng.normal(size=20)[g] + 0.3 * rng.normal(size=15)[h]
    return X, eta + rng.normal(size=300), rng.poisson(np.exp(eta))


def crossed(model, X, y):
    """Names of the modules that a fit crosses until its result is made, sorted."""
    # What is imported and compiled once is no part of the walk.
    model.fit(X, y)
    found, made = set(), EMResult.__init__

    def watch(frame, event, _):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.split(".")[0] == "sklmm":
            found.add(name)

    def stop(self, *args, **kwargs):
        sys.setprofile(None)
        made(self, *args, **kwargs)

    EMResult.__init__ = stop
    try:
        sys.setprofile(watch)
        model.fit(X, y)
    finally:
        sys.setprofile(None)
        EMResult.__init__ = made
    return sorted(found)


def modules():
    """(module's name, its syntax tree) of every file of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("sklmm", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text())


def imported(tree):
    """Names of the modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # A name may itself be a module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(name):
    """The room of the engine that a module is in: its package, or itself; None elsewhere."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["sklmm", "engine"] and len(parts) > 2 else None


def rooms():
    """Rooms of the engine, and the set of rooms that each imports."""
    out = defaultdict(set)
    for name, tree in modules():
        if (own := room(name)) is not None:
            out[own] |= {room(other) for other in imported(tree)} - {None, own}
    return dict(out)


def mutual(arrows):
    """Pairs of rooms that reach each other by imports."""

    def reached(start):
        seen, ahead = set(), [start]
        while ahead:
            for other in arrows.get(ahead.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    ahead.append(other)
        return seen

    within = {own: reached(own) for own in arrows}
    return sorted(
        (a, b) for a in within for b in within if a < b and b in within[a] and a in within[b]
    )


def decisions():
    """(module, line) where a family's name is compared or looked up outside `sklmm.families`."""

    def is_name(node):
        text = ast.unparse(node)
        return isinstance(node, ast.Attribute) and text.endswith(("family.name", "like.name"))

    for name, tree in modules():
        if name.startswith("sklmm.families"):
            continue
        for node in ast.walk(tree):
            asked = []
            if isinstance(node, ast.Compare):
                asked = [node.left, *node.comparators]
            elif isinstance(node, ast.Subscript):
                asked = [node.slice]
            elif isinstance(node, ast.Match):
                asked = [node.subject]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get":
                asked = node.args
            if any(is_name(part) for whole in asked for part in ast.walk(whole)):
                yield name, node.lineno


def definitions(kind, matches):
    """(module, name) of the classes or functions of the package whose name matches."""
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, kind) and matches(node.name):
                yield name, node.name


def equations():
    """(module, name, base) of the classes of mixed-model equations, and of all their subclasses.

    `base` is the class of equations that a subclass derives from, and None for one that is named
    after equations and derives from none.
    """
    classes = [
        (name, node.name, [ast.unparse(base).split(".")[-1] for base in node.bases])
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    found, before = {own for _, own, _ in classes if own.endswith("Equations")}, None
    while found != before:
        before = found
        found = found | {own for _, own, bases in classes if found & set(bases)}
    return [
        (name, own, next((base for base in bases if base in found), None))
        for name, own, bases in classes
        if own in found
    ]


def solvers():
    """Functions that are conjugate gradients."""
    return list(definitions(ast.FunctionDef, lambda name: "conjugate_gradient" in name.lower()))


def lines():
    """Lines of code of the package."""
    return sum(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py"))


def main():
    X, y, counts = table()
    terms = ["g", "h"]
    for title, model, response in (
        ("an exact fit", MixedEffectsRegressor(terms), y),
        ("conjugate gradients", MixedEffectsRegressor(terms, e_step="cg"), y),
        (
            "Laplace, Poisson",
            MixedEffectsRegressor(terms, family="poisson", e_step="laplace"),
            counts,
        ),
        (
            "hmc, Poisson",
            MixedEffectsRegressor(terms, family="poisson", e_step="hmc", random_state=0),
            counts,
        ),
    ):
        found = crossed(model, X, response)
        print(f"{title}: {len(found)} modules crossed\n    {', '.join(n[6:] for n in found)}")
    arrows = rooms()
    print(f"rooms of the engine: {len(arrows)}; that import each other: {mutual(arrows) or 'none'}")
    for own in sorted(arrows):
        print(f"    {own} -> {', '.join(sorted(arrows[own])) or 'nothing'}")
    found = list(decisions())
    print(f"decisions by a family's name outside families: {len(found)}")
    print("".join(f"    {name}:{line}\n" for name, line in found), end="")
    written = ", ".join(f"{name}.{own}({base or ''})" for name, own, base in equations())
    print(f"classes of equations: {written}\nconjugate gradients: {solvers()}\nlines: {lines()}")


if __name__ == "__main__":
    main()
