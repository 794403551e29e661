#!/usr/bin/env bash
# A linear mixed model with prior weights w, lmer(..., weights = w), is the unweighted one of rows times
# sqrt(w): the same estimates, standard errors and likelihood but for a constant. Kenward and Roger's covariance
# and degrees of freedom must be the same two times, too. pbkrtest 0.5.2 makes V = sum_r s_r G_r with the
# identity for the residual, whatever the weights are, beside lme4's weighted (X' V^-1 X)^-1: nothing is said,
# and summary() and anova() of lmerTest 3.1-3 with ddf = "Kenward-Roger", which ask it, have those numbers.
# Of 60 rows a slope has 8084 degrees of freedom, whereas Satterthwaite's rule sees the weights, and has 53 as
# Kenward and Roger's has of the other rows. sklmm has the second line's numbers for both, with
# Gaussian(weights="precision").
#
# Seen with R 4.2.2 and Debian 12's r-cran-pbkrtest 0.5.2-2 and r-cran-lmertest 3.1-3-2:
#              plain satterthwaite adjusted kenward_roger
#   weighted 0.03178      53.09226  0.03187     8084.1477
#   rows     0.03178      53.09226  0.03179       53.0919
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("pbkrtest", "lmerTest") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends r-cran-pbkrtest r-cran-lmertest >/dev/null
fi
cat >"$folder/weights.R" <<'R'
suppressMessages({library(lmerTest); library(pbkrtest)})
stopifnot(packageVersion("pbkrtest") == "0.5.2")
set.seed(3)
n <- 60
d <- data.frame(x = rnorm(n), g = factor(rep(1:6, 10)), w = rep(c(1, 20), each = n / 2))
d$y <- 1 + rnorm(6)[d$g] + rnorm(n) / sqrt(d$w)
d <- transform(d, ry = y * sqrt(w), r1 = sqrt(w), rx = x * sqrt(w))
models <- list(weighted = lmer(y ~ x + (1 | g), d, weights = w), rows = lmer(ry ~ 0 + r1 + rx + (0 + r1 | g), d))
told <- sapply(models, function(m) c(
  plain = coef(summary(m))[2, "Std. Error"], satterthwaite = coef(summary(m))[2, "df"],
  adjusted = coef(summary(m, ddf = "Kenward-Roger"))[2, "Std. Error"],
  kenward_roger = coef(summary(m, ddf = "Kenward-Roger"))[2, "df"]))
print(round(t(told), 5))
stopifnot(abs(told["plain", 1] / told["plain", 2] - 1) < 1e-4, abs(told["satterthwaite", 1] / told["satterthwaite", 2] - 1) < 1e-3)
stopifnot(told["kenward_roger", 1] > 1000, abs(told["kenward_roger", 2] - 53.09) < 0.1)
R
Rscript "$folder/weights.R"
