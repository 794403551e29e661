"""
Ratings as ordered classes
==========================

A rating from 1 to 5 is no number on a line: nothing is below 1 or above 5, and the step from 1 to 2
need not be the step from 3 to 4. An ordinal model has a latent scale, on which students and
instructors have their effects, and cutpoints between the ratings, which it estimates. We compare
its probabilities with those of a Gaussian model, on rows that neither has seen.
"""

# %%
# Fit
# ---
# Four of InstEval's 14 departments. Students and instructors are crossed, so the ordinal model is
# fitted by Monte Carlo EM, in which Hamiltonian Monte Carlo draws the effects; the summary says
# what Monte Carlo error is left, in standard errors.
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from scipy.stats import norm
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_insteval
from sklmm.inspection import ConvergenceDisplay

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
some = X["departments"].isin([5, 7, 14, 15])
X, y = X[some], y[some].astype(int)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
terms = ["students", "instructors"]

ordinal = MixedEffectsClassifier(terms, fixed_effects=["service"], family="ordinal", random_state=0)
start = time.perf_counter()
ordinal.fit(X_train, y_train)
print(f"{len(X_train):,} rows in {time.perf_counter() - start:.1f} s")
print(ordinal.summary())

# %%
# Cutpoints
# ---------
# P(rating <= c) is logistic(cutpoint - effects). The steps between the cutpoints come out nearly
# alike, 1.2 each, as a Gaussian model takes them to be. What the ordinal model gains below comes
# from the ends of the scale.
cutpoints = ordinal.fixed_effects_[["estimate", "std_error"]].iloc[:4]
print("\ncutpoints:")
print(cutpoints.assign(step=cutpoints["estimate"].diff()).to_string(float_format="{:.3f}".format))

# %%
# Probabilities of the ratings
# ----------------------------
# ``predict_proba`` averages over the posterior of the effects. The Gaussian model's density is cut
# half way between the ratings, with its ends added to 1 and 5. The shares of the ratings in the
# training rows know neither student nor instructor.
gaussian = MixedEffectsRegressor(terms, fixed_effects=["service"]).fit(X_train, y_train)
mean, std = gaussian.predict(X_test, return_std=True)
cuts = np.array([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf])
shares = y_train.value_counts(normalize=True).sort_index().to_numpy()
probabilities = {
    "ordinal": ordinal.predict_proba(X_test),
    "Gaussian": np.diff(norm.cdf((cuts - mean[:, None]) / std[:, None]), axis=1),
    "shares": np.tile(shares, (len(y_test), 1)),
}
ratings = np.arange(1, 6)
scores = {
    name: {
        "log-loss": log_loss(y_test, p),
        "accuracy": np.mean(ratings[p.argmax(axis=1)] == y_test),
        "RMSE of the mean": np.sqrt(np.mean((p @ ratings - y_test) ** 2)),
    }
    for name, p in probabilities.items()
}
print(f"\n{len(y_test):,} rows held out:")
print(pd.DataFrame(scores).T.to_string(float_format="{:.4f}".format))

# %%
# Predicted and observed shares
# -----------------------------
# The held-out rows, and among them the fifths with the lowest and the highest predicted mean; the
# lines are 95 % intervals of the observed shares. The Gaussian model has too many ratings in the
# middle and too few at the ends.
rank = pd.Series(probabilities["ordinal"] @ ratings).rank(pct=True).to_numpy()
parts = {
    "All held-out rows": np.ones(len(y_test), bool),
    "Lowest fifth by prediction": rank <= 0.2,
    "Highest fifth by prediction": rank > 0.8,
}
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
for ax, (title, rows) in zip(axes, parts.items(), strict=True):
    observed = np.bincount(y_test[rows], minlength=6)[1:] / rows.sum()
    error = np.sqrt(observed * (1 - observed) / rows.sum())
    ax.bar(ratings, observed, yerr=1.96 * error, color="0.8", ecolor="0.5", label="observed")
    for shift, (name, marker) in zip(
        [-0.12, 0.12], [("ordinal", "o"), ("Gaussian", "s")], strict=True
    ):
        ax.plot(ratings + shift, probabilities[name][rows].mean(axis=0), marker, label=name)
    ax.set(xlabel="rating", xticks=ratings, title=title)
axes[0].set_ylabel("share of the rows")
axes[1].legend(frameon=False)
fig.savefig(figures / "ordinal_shares.png", dpi=120)

# %%
# Convergence
# -----------
# The loss is -log p(y, b) at the draws of b: it need not fall, and keeps moving as they do. The
# parameters settle within a few iterations, far inside the band of one standard error; the others
# average the Monte Carlo error away.
display = ConvergenceDisplay.from_estimator(ordinal)
display.figure_.get_layout_engine().set(w_pad=0.1)
display.figure_.savefig(figures / "ordinal_convergence.png", dpi=120)
print(f"\nfigures in {figures}")
