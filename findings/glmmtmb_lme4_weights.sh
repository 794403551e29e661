#!/usr/bin/env bash
# The same call with `weights = w` is two models. lme4's lmer (as lm and nlme) takes weights as
# precisions: the residual variance of a row is sigma^2 / w, and w = 4 for all rows leaves estimates
# and standard errors as they are and doubles sigma. glmmTMB's multiply each row's log-likelihood, for
# Gaussian models too: w = 4 is every row four times, standard errors of the fixed effects halve, and
# sigma stays about as it was. Neither says so when it is called. sklmm has glmmTMB's meaning by
# default (repetitions, as scikit-learn's sample_weight), and lme4's by Gaussian(weights="precision").
#
# Seen with R 4.2.2 and Debian 12's r-cran-glmmtmb 1.1.5+dfsg-4, r-cran-lme4 1.1-31-1:
#   lmer, w = 1: standard error of Days 0.8017, sigma 30.895
#   lmer, w = 4: standard error of Days 0.8017, sigma 61.791
#   glmmTMB, w = 1: standard error of Days 0.8017, sigma 30.895
#   glmmTMB, w = 4: standard error of Days 0.3851, sigma 29.683
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("lme4", "glmmTMB") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends \
        r-cran-glmmtmb=1.1.5+dfsg-4 r-cran-lme4=1.1-31-1 >/dev/null
fi
cat >"$folder/weights.R" <<'R'
suppressMessages({library(lme4); library(glmmTMB)})
stopifnot(packageVersion("glmmTMB") == "1.1.5", packageVersion("lme4") == "1.1.31")
d <- sleepstudy
by <- function(w, fit, coefs) {
  d$w <- w
  m <- fit(d)
  c(coefs(m)["Days", "Std. Error"], sigma(m))
}
lmer_ <- function(d) lmer(Reaction ~ Days + (1 | Subject), data = d, weights = w, REML = FALSE)
tmb <- function(d) glmmTMB(Reaction ~ Days + (1 | Subject), data = d, weights = w)
found <- rbind(
  by(1, lmer_, function(m) coef(summary(m))), by(4, lmer_, function(m) coef(summary(m))),
  by(1, tmb, function(m) coef(summary(m))$cond), by(4, tmb, function(m) coef(summary(m))$cond))
cat(sprintf("%s: standard error of Days %.4f, sigma %.3f\n",
            c("lmer, w = 1", "lmer, w = 4", "glmmTMB, w = 1", "glmmTMB, w = 4"), found[, 1], found[, 2]), sep = "")
stopifnot(abs(found[2, 1] / found[1, 1] - 1) < 1e-3, abs(found[2, 2] / found[1, 2] - 2) < 1e-3)
stopifnot(found[4, 1] / found[3, 1] < .6, abs(found[4, 2] / found[3, 2] - 1) < .05)
R
Rscript "$folder/weights.R"
