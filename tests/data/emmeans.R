# Reference values of emmeans.json: Rscript tests/data/emmeans.R, in the repository's root.
# R 4.2.2 with lme4 1.1-31, lmerTest 3.1-3, pbkrtest 0.5.2, emmeans 1.8.4, glmmTMB 1.1.5.
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(glmmTMB); library(jsonlite)})
emm_options(opt.digits = FALSE)
told <- function(e, ...) as.data.frame(summary(e, ...))
out <- list()

# Machines, with nested factors: means and pairs.
m <- read.csv("tests/data/Machines.csv")
m$Machine <- factor(m$Machine); m$Worker <- factor(m$Worker)
fit <- lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), m, REML = TRUE,
            control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14)))
for (df in c("kenward-roger", "satterthwaite")) {
  e <- emmeans(fit, ~ Machine, lmer.df = df)
  out[[paste0("balanced_", df)]] <- list(means = told(e), pairs = told(pairs(e), infer = TRUE))
}

# Unbalanced, with a numeric covariate of two values, an interaction with it, and another covariate.
m <- read.csv("tests/data/Machines.csv")
m$Machine <- factor(m$Machine); m$Worker <- factor(m$Worker)
i <- seq_len(nrow(m)) - 1
m$shift <- ifelse((i * i) %% 3 == 0, 2, 5)
m$x <- sin(i)
m <- m[(i %% 7 != 3) & (i %% 5 != 1), ]
fit <- lmer(score ~ Machine * shift + x + (1 | Worker), m, REML = TRUE,
            control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14)))
for (df in c("kenward-roger", "satterthwaite")) {
  e <- emmeans(fit, ~ Machine, lmer.df = df)
  by <- emmeans(fit, ~ Machine | shift, lmer.df = df)
  held <- emmeans(fit, ~ Machine, lmer.df = df, cov.keep = "1")
  at <- emmeans(fit, ~ Machine, at = list(x = 0.25, shift = c(1, 4)), lmer.df = df)
  out[[paste0("machines_", df)]] <- list(
    means = told(e), pairs = told(pairs(e), infer = TRUE), by = told(by),
    by_pairs = told(pairs(by), infer = TRUE), held = told(held),
    held_pairs = told(pairs(held), infer = TRUE), at = told(at),
    sidak = told(pairs(e, adjust = "sidak"), infer = TRUE),
    holm = told(pairs(e, adjust = "holm")), fdr = told(pairs(e, adjust = "fdr")),
    bonferroni = told(pairs(e, adjust = "bonferroni"), infer = TRUE),
    none = told(pairs(e, adjust = "none"), infer = TRUE),
    custom = told(contrast(e, list("A - mean(B, C)" = c(1, -0.5, -0.5))), infer = TRUE))
}

# A cell without rows: its mean is not estimable.
cell <- m[!(m$Machine == "B" & m$shift == 5), ]
cell$late <- factor(cell$shift)
fit <- suppressMessages(lmer(score ~ Machine * late + (1 | Worker), cell, REML = TRUE))
e <- emmeans(fit, ~ Machine * late, lmer.df = "satterthwaite")
out$empty_cell <- list(means = told(e), pairs = told(pairs(e, adjust = "none")),
                       machines = told(emmeans(fit, ~ Machine, lmer.df = "satterthwaite")))

# A logistic model, by Laplace's approximation.
b <- cbpp; b$half <- factor((seq_len(nrow(b)) - 1) %% 2); b$z <- cos(seq_len(nrow(b)) - 1)
fit <- glmer(cbind(incidence, size - incidence) ~ period + half + z + (1 | herd), b, binomial,
             control = glmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14),
                                    optimizer = "nloptwrap", tolPwrss = 1e-12))
out$cbpp <- list(
  sd = attr(VarCorr(fit)$herd, "stddev")[[1]],
  link = told(emmeans(fit, ~ period)), pairs = told(pairs(emmeans(fit, ~ period)), infer = TRUE),
  response = told(emmeans(fit, ~ period * half, type = "response")),
  regrid = told(emmeans(fit, ~ period, regrid = "response")),
  regrid_pairs = told(pairs(emmeans(fit, ~ period, regrid = "response")), infer = TRUE))

# Counts with zeros of their own.
z <- read.csv("tests/data/zinb.csv"); z$g <- factor(z$g)
z$half <- factor((seq_len(nrow(z)) - 1) %% 2)
fit <- glmmTMB(y ~ x + half + (1 | g), ziformula = ~ x + half, family = poisson, data = z)
# emmeans has no expected response of this version's fits; the zeros count in predict's.
at <- data.frame(x = 0.3, half = factor(0:1), g = NA)
expected <- predict(fit, at, type = "response", re.form = NA, se.fit = TRUE)
out$zip <- list(
  sd = attr(VarCorr(fit)$cond$g, "stddev")[[1]],
  link = told(emmeans(fit, ~ half)),
  conditional = told(emmeans(fit, ~ half, type = "response")),
  zero = told(emmeans(fit, ~ half, component = "zi", type = "response", at = list(x = 0.3))),
  zero_link = told(emmeans(fit, ~ 1, component = "zi", at = list(x = 0.3))),
  response = data.frame(half = at$half, expected[c("fit", "se.fit")]))
cat(toJSON(out, digits = 12, pretty = TRUE, na = "null"), file = "tests/data/emmeans.json")
