"""
Breeding values by the animal model
===================================

Records of animals in herds, and a pedigree: the animal model splits what an animal has of its genes
from what it has of its herd, and predicts animals that have no records from their relatives.
"""

# %%
# A herd book
# -----------
# Ten generations of 300 animals. Each has a sire of few and a dam of many of the generation before,
# and the mean of their values and a Mendelian deviation for its own value. The last generation has
# no records yet.
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor, RandomEffect, Relationship

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

rng = np.random.default_rng(0)
size, generations = 300, 10
frames = [pd.DataFrame({"id": np.arange(size) + 1, "sire": 0, "dam": 0})]
for g in range(1, generations):
    before = rng.permutation(frames[-1]["id"])
    parents = {"sire": rng.choice(before[:12], size), "dam": rng.choice(before[12:], size)}
    frames.append(pd.DataFrame({"id": np.arange(size) + g * size + 1, **parents}))
pedigree = pd.concat(frames, ignore_index=True)

relationship = Relationship.from_pedigree(pedigree)
inbreeding = relationship.inbreeding.to_numpy().reshape(generations, size).mean(axis=1)
print("mean inbreeding by generation:", inbreeding.round(3))

# Draws from N(0, A): the true breeding values.
true = pd.Series(relationship.back(rng.normal(size=(len(pedigree), 1)))[:, 0], relationship.labels)
n = 6000
records = pd.DataFrame(
    {"animal": rng.integers(1, (generations - 1) * size + 1, n), "herd": rng.integers(60, size=n)}
)
herds = rng.normal(0, 0.7, 60)
y = 10 + true[records["animal"]].to_numpy() + herds[records["herd"]] + rng.normal(0, 1.5, n)

# %%
# The fit
# -------
# Relatives tell of each other: the animals' variance is told apart from the residual, and
# heritability is its share.
model = MixedEffectsRegressor(
    [RandomEffect("animal", covariance=relationship), "herd"], random_state=0
).fit(records, y)
print(model.summary())
animal, _, residual = model.variance_components_["variance"]
print(f"heritability {animal / (animal + residual):.2f}, true {1 / (1 + 1.5**2):.2f}")

# %%
# Animals without records
# -----------------------
# Those of the last generation have half of their sire's and of their dam's value, and are as exact
# as that: their Mendelian deviation is not known yet.
values = model.random_effects_["animal"]["Intercept"]
stds = model.random_effects_std_["animal"]["Intercept"]
young = values.index > (generations - 1) * size
for name, some in {"with records": ~young, "young": young}.items():
    r = np.corrcoef(values[some], true[some])[0, 1]
    inside = (np.abs(values[some] - true[some]) < 1.96 * stds[some]).mean()
    print(f"{name}: correlation with the true values {r:.2f}, {inside:.0%} within 1.96 SDs")

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for some, label in ((~young, "older generations"), (young, "no records yet")):
    axes[0].plot(true[some], values[some], ".", ms=3, label=label)
axes[0].axline((0, 0), slope=1, color="0.3", lw=1, ls=":")
axes[0].set(xlabel="true breeding value", ylabel="predicted")
axes[0].legend(frameon=False)
axes[1].plot(range(generations), inbreeding, "o-")
axes[1].set(xlabel="generation", ylabel="mean inbreeding")
fig.savefig(figures / "animal_model.png", dpi=120)
print(f"figures in {figures}")
