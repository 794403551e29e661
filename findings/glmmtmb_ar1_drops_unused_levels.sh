#!/usr/bin/env bash
# glmmTMB's `ar1(0 + f | g)` wants a factor of equally spaced times, and one declares the times that
# nobody was seen at by the factor's levels. Version 1.1.5 drops unused levels before it numbers the
# times: the visits before and after a gap of three count as neighbours, the fit is the same for both
# factors, its covariance has 4 times and not 6, and no message says so. By distances (nlme's
# exponential correlation with a nugget, the same model) the log-likelihood is 7.5 higher. sklmm's
# `ar1` counts a declared category as a place whether or not it was observed.
#
# Seen with R 4.2.2 and Debian 12's r-cran-glmmtmb 1.1.5+dfsg-4, r-cran-nlme 3.1.162-1:
#   levels 1 to 6: 4 times, correlation 0.6302, log-likelihood -851.7431
#   levels 1, 2, 5, 6: 4 times, correlation 0.6302, log-likelihood -851.7431
#   nlme by distance: correlation 0.7879 a unit of time, log-likelihood -844.2848
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("glmmTMB", "nlme") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends \
        r-cran-glmmtmb=1.1.5+dfsg-4 r-cran-nlme=3.1.162-1 >/dev/null
fi
cat >"$folder/gap.R" <<'R'
suppressMessages(library(glmmTMB))
library(nlme)
stopifnot(packageVersion("glmmTMB") == "1.1.5")
set.seed(1)
groups <- 150
times <- 6
b <- t(sapply(seq_len(groups), function(j) {
  x <- rnorm(1)
  for (t in 2:times) x[t] <- .8 * x[t - 1] + .6 * rnorm(1)
  x
}))
d <- expand.grid(id = seq_len(groups), t = seq_len(times))
d$y <- b[cbind(d$id, d$t)] + rnorm(nrow(d), 0, .5)
d$id <- factor(d$id)
d <- subset(d, !(t %in% 3:4))
fitted_by <- function(name, levels) {
  d$f <- factor(d$t, levels = levels)
  model <- glmmTMB(y ~ 1 + ar1(0 + f | id), data = d, REML = FALSE)
  R <- attr(VarCorr(model)$cond$id, "correlation")
  cat(sprintf("%s: %d times, correlation %.4f, log-likelihood %.4f\n", name, nrow(R), R[1, 2],
              logLik(model)))
  c(nrow(R), logLik(model))
}
declared <- fitted_by("levels 1 to 6", 1:6)
seen <- fitted_by("levels 1, 2, 5, 6", c(1, 2, 5, 6))
model <- gls(y ~ 1, data = d, correlation = corExp(form = ~ t | id, nugget = TRUE), method = "ML")
range <- coef(model$modelStruct$corStruct, unconstrained = FALSE)[["range"]]
cat(sprintf("nlme by distance: correlation %.4f a unit of time, log-likelihood %.4f\n",
            exp(-1 / range), logLik(model)))
stopifnot(declared[1] == 4, abs(declared[2] - seen[2]) < 1e-6, logLik(model) - declared[2] > 7)
R
Rscript "$folder/gap.R"
