#!/usr/bin/env bash
# `clm` and `clmm` of R's package ordinal take the same words for the link of a cumulative model, and
# a mixed model without variance between the groups is the fixed one. In ordinal 2022.11-16 two of the
# words are exchanged between the two functions: clmm(link = "loglog") has the log-likelihood of
# clm(link = "cloglog"), and clmm(link = "cloglog") that of clm(link = "loglog"). Nothing is said, and
# coefficients of either are plausible. Of clm's, cloglog is F(q) = 1 - exp(-exp q), proportional
# hazards, as in McCullagh (1980). sklmm names links as clm does.
#
# Seen with R 4.2.2 and Debian 12's r-cran-ordinal 2022.11-16-1:
#   loglog: clm -1098.0628, clmm -1055.0767
#   cloglog: clm -1055.0767, clmm -1098.0628
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !("ordinal" %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends r-cran-ordinal=2022.11-16-1 >/dev/null
fi
cat >"$folder/links.R" <<'R'
suppressMessages(library(ordinal))
stopifnot(packageVersion("ordinal") == "2022.11.16")
set.seed(2)
n <- 900
d <- data.frame(x = rnorm(n), g = factor(sample(30, n, TRUE)))
# A latent variable whose distribution function is 1 - exp(-exp q).
latent <- .8 * d$x + log(rexp(n))
d$y <- cut(latent, c(-Inf, -1.2, 0, .8, Inf), ordered_result = TRUE)
fixed <- sapply(c("loglog", "cloglog"), function(l) logLik(clm(y ~ x, data = d, link = l)))
mixed <- sapply(c("loglog", "cloglog"), function(l) logLik(clmm(y ~ x + (1 | g), data = d, link = l)))
for (l in names(fixed)) cat(sprintf("%s: clm %.4f, clmm %.4f\n", l, fixed[l], mixed[l]))
# The variance is near 0: exchanged, the likelihoods are equal but for that.
stopifnot(abs(mixed["loglog"] - fixed["cloglog"]) < 1, abs(mixed["cloglog"] - fixed["loglog"]) < 1)
stopifnot(abs(fixed["loglog"] - fixed["cloglog"]) > 10)
R
Rscript "$folder/links.R"
