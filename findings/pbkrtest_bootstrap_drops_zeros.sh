#!/usr/bin/env bash
# The parametric bootstrap of a likelihood ratio has p = (1 + k) / (1 + n), with k of n data sets of a
# ratio no less (Davison & Hinkley 1997, sec. 4.2), and it is what one takes for a variance that is 0
# in the smaller model, where chi-square's p is up to twice too large: of half of the sets the ratio
# is 0. PBmodcomp of R's package pbkrtest 0.5.2 divides by the sets of a ratio above 0 alone ("Used
# samples"), so that p is up to twice too large again; whether a ratio counts as 0 is its rounding.
# And its argument `seed` is taken and not passed on: two calls with seed = 1 draw other sets.
#
# Seen with R 4.2.2, Debian 12's r-cran-lme4 1.1-31 and r-cran-pbkrtest 0.5.2 on lme4's Pastes, as to
# whether batches vary beside their casks:
#   chi2 0.407; of 300 sets 158 above 0, p 0.491; of all sets 0.259; mixture of chi-squares 0.262
#   PBrefdist(seed = 1) twice: 0.109, 0, 0.812 and 0, 0, 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !("pbkrtest" %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends r-cran-pbkrtest=0.5.2-1 >/dev/null
fi
cat >"$folder/zeros.R" <<'R'
suppressMessages({library(lme4); library(pbkrtest)})
stopifnot(packageVersion("pbkrtest") == "0.5.2")
options(warn = -1)
small <- lmer(strength ~ 1 + (1 | sample), Pastes, REML = FALSE)
large <- lmer(strength ~ 1 + (1 | batch) + (1 | sample), Pastes, REML = FALSE)
chi2 <- as.numeric(2 * (logLik(large) - logLik(small)))
set.seed(1)
ref <- suppressMessages(PBrefdist(large, small, nsim = 300))
told <- PBmodcomp(large, small, ref = ref)$test["PBtest", "p.value"]
p <- (1 + sum(ref > chi2)) / (1 + length(ref))
cat(sprintf("chi2 %.3f; of %d sets %d above 0, p %.3f; of all sets %.3f; mixture %.3f\n",
            chi2, length(ref), sum(ref > 0), told, p, pchisq(chi2, 1, lower.tail = FALSE) / 2))
stopifnot(told > 1.5 * p)
draws <- replicate(2, as.numeric(suppressMessages(PBrefdist(large, small, nsim = 3, seed = 1))))
print(draws)
stopifnot(any(abs(draws[, 1] - draws[, 2]) > 1e-3))
R
Rscript "$folder/zeros.R"
