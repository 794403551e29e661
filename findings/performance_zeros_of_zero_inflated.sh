#!/usr/bin/env bash
# `check_zeroinflation` of R's package performance is given a model that has zeros of its own,
# glmmTMB's ziformula, and one expects it to count the zeros of that model. In performance 0.10.2 it
# takes the mean response, (1 - zi) mu, for the mean of a plain Poisson (or negative binomial) and
# counts exp(-(1 - zi) mu): of the very model that the data are drawn from it says "probable
# zero-inflation". zi was .3 and is estimated well, and data simulated from the fit have the zeros
# that were observed. So sklmm's check() counts P(Y = 0) of the whole mixture.
#
# Seen with R 4.2.2 and Debian 12's r-cran-performance 0.10.2-1, r-cran-glmmtmb 1.1.5+dfsg-4:
#   observed 690 zeros, the model's simulations have 692.0, check_zeroinflation expects 318
#   Model is underfitting zeros (probable zero-inflation).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("performance", "glmmTMB") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends \
        r-cran-glmmtmb=1.1.5+dfsg-4 r-cran-performance=0.10.2-1 >/dev/null
fi
cat >"$folder/zeros.R" <<'R'
suppressMessages({library(glmmTMB); library(performance)})
stopifnot(packageVersion("performance") == "0.10.2")
set.seed(1)
n <- 2000
g <- rep(1:100, 20)
x <- rnorm(n)
y <- ifelse(runif(n) < .3, 0, rpois(n, exp(1 + .3 * x + rnorm(100, 0, .4)[g])))
m <- glmmTMB(y ~ x + (1 | g), data.frame(y, x, g), poisson, ziformula = ~ 1)
stopifnot(abs(plogis(fixef(m)$zi) - .3) < .05)
drawn <- mean(sapply(simulate(m, 200, seed = 1), function(v) sum(v == 0)))
found <- check_zeroinflation(m)
cat(sprintf("observed %d zeros, the model's simulations have %.1f, check_zeroinflation expects %d\n",
            sum(y == 0), drawn, found$predicted.zeros))
print(found)
stopifnot(abs(drawn / sum(y == 0) - 1) < .05, found$predicted.zeros < .6 * drawn)
R
Rscript "$folder/zeros.R"
