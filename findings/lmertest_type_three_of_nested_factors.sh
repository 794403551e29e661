#!/usr/bin/env bash
# A type III test does not depend on how factors are coded, nor on which level is the first: it has the mean
# over the levels of the other factors. So has lmerTest's anova() of y ~ a * b. Of the same model written with b
# nested in a, y ~ a / b, which has the same fitted values, the row of a in lmerTest 3.1-3 is the difference
# at b's FIRST level: with another order of b's levels F and p are others, under the same heading "Type III".
# With sum-to-zero codes the coefficient of a is what is asked, and sklmm's joint_tests() has that whatever
# the codes are.
#
# Seen with R 4.2.2 and Debian 12's r-cran-lmertest 3.1-3-2:
#                a * b a * b, other order              a / b a / b, other order
#               9.0223             9.0223            36.5324             0.0757
#   a / b, sum to zero
#               9.0223
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! Rscript -e 'quit(status = !("lmerTest" %in% rownames(installed.packages())))'; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends r-cran-lmertest >/dev/null
fi
cat >"$folder/nested.R" <<'R'
suppressMessages(library(lmerTest))
stopifnot(packageVersion("lmerTest") == "3.1.3")
set.seed(1)
n <- 150
d <- data.frame(a = factor(sample(c("u", "v"), n, TRUE)), b = factor(sample(c("k", "l", "m"), n, TRUE)), g = factor(sample(12, n, TRUE)))
d$y <- (d$a == "v") * c(1.5, .5, 0)[d$b] + rnorm(12)[d$g] + rnorm(n)
other <- transform(d, b = relevel(b, "m"))
F <- c(
  `a * b` = anova(lmer(y ~ a * b + (1 | g), d))["a", "F value"],
  `a * b, other order` = anova(lmer(y ~ a * b + (1 | g), other))["a", "F value"],
  `a / b` = anova(lmer(y ~ a / b + (1 | g), d))["a", "F value"],
  `a / b, other order` = anova(lmer(y ~ a / b + (1 | g), other))["a", "F value"],
  `a / b, sum to zero` = coef(summary(lmer(y ~ a / b + (1 | g), d, contrasts = list(a = "contr.sum", b = "contr.sum"))))["a1", "t value"]^2)
print(round(F, 4))
stopifnot(abs(F[1] / F[2] - 1) < 1e-3, abs(F[1] / F[5] - 1) < 1e-3, F[3] / F[1] > 1.5 || F[1] / F[3] > 1.5)
stopifnot(max(F[3:4]) / min(F[3:4]) > 1.5)
R
Rscript "$folder/nested.R"
