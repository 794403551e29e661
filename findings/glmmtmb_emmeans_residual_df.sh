#!/usr/bin/env bash
# One Poisson model with a random intercept, fitted by glmer and by glmmTMB, has the same coefficients
# and standard errors in both, and both summaries test them by z. One expects emmeans to give the same
# intervals and p values too. Of glmer's fit they are z's (df = Inf); of glmmTMB 1.1.5's they are t's
# with the model's residual df, rows less parameters, which knows nothing of the groups: of 24 rows
# in 6 groups 21 df, so that intervals are 6 % wider and the p value of emmeans' contrast is three
# times that of the summary of the same fit. sklmm's marginal means have z's, as glmer's: what is
# compared with glmmTMB's needs `df = Inf` there.
#
# Seen with R 4.2.2 and Debian 12's r-cran-emmeans 1.8.4-1, r-cran-glmmtmb 1.1.5+dfsg-4, r-cran-lme4
# 1.1-31-1:
#                   glmer   glmmTMB
#   se          0.1936000  0.195300
#   df                Inf 21.000000
#   width       0.7589000  0.812500
#   p           0.0009148  0.003525
#   summary's p 0.0009148  0.001017
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !all(c("emmeans", "glmmTMB", "lme4") %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends \
        r-cran-emmeans r-cran-glmmtmb=1.1.5+dfsg-4 r-cran-lme4 >/dev/null
fi
cat >"$folder/df.R" <<'R'
suppressMessages({library(emmeans); library(glmmTMB)})
stopifnot(packageVersion("glmmTMB") == "1.1.5", packageVersion("emmeans") == "1.8.4.1")
set.seed(1)
d <- expand.grid(g = factor(1:6), day = 1:2, arm = factor(c("a", "b")))
d$y <- rpois(24, exp(1 + .8 * (d$arm == "b") + rnorm(6, 0, .6)[d$g]))
fits <- list(glmer = lme4::glmer(y ~ arm + (1 | g), d, poisson),
             glmmTMB = glmmTMB(y ~ arm + (1 | g), d, poisson))
found <- sapply(fits, function(m) {
    pair <- summary(pairs(emmeans(m, ~ arm)), infer = TRUE)
    coefs <- coef(summary(m))
    if (is.list(coefs)) coefs <- coefs$cond
    ends <- unlist(pair[, 5:6])
    c(estimate = -pair$estimate, se = pair$SE, df = pair$df, width = unname(diff(ends)),
      p = pair$p.value, `summary's p` = coefs["armb", "Pr(>|z|)"])
})
print(signif(found, 4))
stopifnot(abs(found["estimate", 1] / found["estimate", 2] - 1) < 1e-2,
          abs(found["se", 1] / found["se", 2] - 1) < 2e-2,
          found["df", ] == c(Inf, 21),
          abs(found["p", 1] / found["summary's p", 1] - 1) < 1e-6,
          found["p", 2] > 3 * found["summary's p", 2],
          found["width", 2] > 1.05 * found["width", 1])
R
Rscript "$folder/df.R"
