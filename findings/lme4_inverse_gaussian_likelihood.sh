#!/usr/bin/env bash
# lme4's glmer takes every family of R's glm, inverse.gaussian among them, and reports a logLik and an
# SD of the groups; what it warns of is how its optimiser ended. Of simulated rows that the model is
# true of, the log-likelihood of its Laplace fit is above that of the exact maximum, which by R's own
# integrate has about the SD that the rows were made with (0.5); by 25 points of quadrature, which
# should be nearer to the exact one, it is higher by hundreds, and the SD lower still. sklmm's families
# have the scale of a density with all its constants, and its quadrature is the exact maximum.
#
# Seen with R 4.2.2 and Debian 12's r-cran-lme4 1.1-31-1, r-cran-statmod 1.5.0-1:
#   exact: log-likelihood -1201.74, SD 0.526
#   glmer: log-likelihood -1192.25, SD 0.421
#   glmer, 25 points: log-likelihood -286.16, SD 0.368
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("lme4", "statmod") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends r-cran-lme4=1.1-31-1 r-cran-statmod=1.5.0-1 >/dev/null
fi
cat >"$folder/inverse.R" <<'R'
suppressMessages({library(lme4); library(statmod)})
stopifnot(packageVersion("lme4") == "1.1.31")
set.seed(1)
groups <- 45
g <- rep(seq_len(groups), each = 20)
x <- rnorm(length(g))
effect <- rnorm(groups, 0, .5)
d <- data.frame(g = factor(g), x = x, y = rinvgauss(length(g), exp(.4 + .3 * x + effect[g]), dispersion = .5))
rows <- split(d, d$g)
# log of the integral of a group's density over its effect, scaled by its largest value on a grid.
of_group <- function(own, p) {
  value <- function(b) sapply(b, function(at) {
    mean <- exp(p[1] + p[2] * own$x + at)
    density <- -(own$y - mean)^2 / (2 * exp(p[3]) * own$y * mean^2) - .5 * log(2 * pi * exp(p[3]) * own$y^3)
    sum(density) + dnorm(at, 0, exp(p[4]), log = TRUE)
  })
  top <- max(value(seq(-3, 3, .1)))
  top + log(integrate(function(b) exp(value(b) - top), -3, 3, subdivisions = 400)$value)
}
loglik <- function(p) sum(sapply(rows, of_group, p = p))
found <- optim(c(.4, .3, log(.5), log(.5)), function(p) -loglik(p), method = "BFGS")
exact <- c(-found$value, exp(found$par[4]))
by <- function(points) {
  m <- suppressMessages(glmer(y ~ x + (1 | g), data = d, family = inverse.gaussian("log"), nAGQ = points))
  c(as.numeric(logLik(m)), attr(VarCorr(m)$g, "stddev"))
}
laplace <- by(1)
quadrature <- by(25)
cat(sprintf("%s: log-likelihood %.2f, SD %.3f\n", c("exact", "glmer", "glmer, 25 points"),
            c(exact[1], laplace[1], quadrature[1]), c(exact[2], laplace[2], quadrature[2])), sep = "")
stopifnot(abs(laplace[1] - exact[1]) > 5, quadrature[1] - exact[1] > 100)
stopifnot(laplace[2] < .85 * exact[2])
R
Rscript "$folder/inverse.R"
