"""
Cross-validation: new rows of known groups, or new groups
=========================================================

How well a mixed model predicts depends on which groups it has seen. A random fold holds rows of
students and instructors that the other folds have too, and their effects help. A fold of new
students has none: the model predicts them by the population's mean, and by what it knows of their
instructors. Both scores are right; they answer different questions.
"""

# %%
# A pipeline
# ----------
# ``set_output(transform="pandas")`` keeps the names of the columns, so that the model finds its
# grouping columns behind the transformer. Semesters are one-hot encoded.
import sys
import time
from pathlib import Path

import matplotlib
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_insteval

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
terms = ["students", "instructors", "departments"]
columns = make_column_transformer(
    (OneHotEncoder(drop="first", sparse_output=False), ["studage", "lectage"]),
    remainder="passthrough",
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipeline = make_pipeline(columns, MixedEffectsRegressor(terms))
start = time.perf_counter()
pipeline.fit(X, y)
model = pipeline[-1]
print(f"{len(X):,} rows in {time.perf_counter() - start:.1f} s; columns of the model:")
print(", ".join(model.feature_names_in_))

# %%
# Three kinds of folds
# --------------------
# Random rows, new students, new instructors.
splits = {
    "random rows": (KFold(5, shuffle=True, random_state=0), None),
    "new students": (GroupKFold(5, shuffle=True, random_state=0), X["students"]),
    "new instructors": (GroupKFold(5, shuffle=True, random_state=0), X["instructors"]),
}
scores = pd.DataFrame(
    {
        name: cross_val_score(pipeline, X, y, cv=folds, groups=groups)
        for name, (folds, groups) in splits.items()
    }
)
scores.index = [f"fold {k + 1}" for k in range(5)]
print("\nR^2 of the folds:")
print(scores.T.assign(mean=scores.mean(), sd=scores.std()).to_string(float_format="{:.3f}".format))

# %%
# The variance components say why. ``icc`` is each factor's share of the variance given the fixed
# part: what knowing its effects exactly would add to R^2. Without the students R^2 falls by .04 of
# their .06, as some 20 ratings do not tell a student's effect exactly; without the instructors, of
# whom there are more ratings each, by nearly all of their .15.
print("\nshares of the variance:")
print(model.icc().to_string(float_format="{:.3f}".format))
print(f"R^2 of the fixed part alone: {model.r2()['marginal']:.3f}")

# %%
# Which terms, and REML or ML?
# ----------------------------
# A grid search over the random effects. Students' effects help to predict new rows of known
# students; the departments' add almost nothing once the instructors are there. REML and ML
# differ in the variances by a degree of freedom or two, which 73,421 rows do not notice.
choices = {
    "instructors": ["instructors"],
    "students,\ninstructors": ["students", "instructors"],
    "all three": terms,
}
search = GridSearchCV(
    pipeline,
    {
        "mixedeffectsregressor__random_effects": list(choices.values()),
        "mixedeffectsregressor__method": ["reml", "ml"],
    },
    cv=KFold(3, shuffle=True, random_state=0),
)
search.fit(X, y)
results = pd.DataFrame(search.cv_results_)
names = {tuple(value): name for name, value in choices.items()}
results["terms"] = [names[tuple(v)] for v in results["param_mixedeffectsregressor__random_effects"]]
results["method"] = results["param_mixedeffectsregressor__method"].str.upper()
print("\ngrid search:")
shown = results[["terms", "method", "mean_test_score", "std_test_score", "rank_test_score"]]
print(shown.replace("\n", " ", regex=True).to_string(index=False, float_format="{:.5f}".format))

# %%
# Scores of the folds, and of the grid.
fig, (bars, grid) = plt.subplots(
    1, 2, figsize=(11, 3.8), width_ratios=[3, 2], sharey=True, layout="constrained"
)
scores.plot.bar(ax=bars, rot=0, width=0.8)
for k, mean in enumerate(scores.mean()):
    bars.axhline(mean, color=f"C{k}", lw=1, ls=":")
bars.set(
    ylabel="$R^2$ on the fold",
    title="Random rows, new students, new instructors",
)
bars.set_ylim(0, 0.24)
bars.legend(frameon=False, ncols=3, loc="upper center")

wide = shown.pivot(index="terms", columns="method").loc[list(choices)]
wide["mean_test_score"].plot.bar(
    ax=grid, yerr=wide["std_test_score"], rot=0, color=["0.75", "0.45"], capsize=3
)
grid.set(xlabel="random effects", title="Grid search, random rows")
grid.legend(frameon=False, ncols=2, loc="upper left")
fig.savefig(figures / "cross_validation.png", dpi=120)
print(f"\nfigure in {figures}")
