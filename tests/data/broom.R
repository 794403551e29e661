# Makes broom.json: Rscript tests/data/broom.R (lme4 1.1-31, lmerTest 3.1-3, glmmTMB 1.1.5,
# broom.mixed 0.2.9.4).
suppressMessages({library(lmerTest); library(glmmTMB); library(broom.mixed)})
told <- function(m, n = 3, ...) list(
  tidy = as.data.frame(tidy(m, conf.int = TRUE, ...)),
  values = head(as.data.frame(tidy(m, effects = "ran_vals", conf.int = TRUE)), n),
  glance = as.data.frame(glance(m)),
  augment = head(suppressWarnings(as.data.frame(augment(m))), n))
cbpp <- transform(lme4::cbpp, share = incidence / size)
zinb <- read.csv("tests/data/zinb.csv")
out <- list(
  sleepstudy = told(lmer(Reaction ~ Days + (1 + Days | Subject), sleepstudy)),
  machines = told(lme4::lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), nlme::Machines,
                             REML = FALSE)),
  cbpp = told(lme4::glmer(share ~ period + (1 | herd), cbpp, binomial, weights = size)),
  zinb = told(glmmTMB(y ~ x + z + (1 + x | g), zinb, nbinom2, ziformula = ~ z + (1 | h))))
writeLines(jsonlite::toJSON(out, digits = NA, na = "null", auto_unbox = TRUE, pretty = TRUE),
           "tests/data/broom.json")
