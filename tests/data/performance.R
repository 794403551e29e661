# Makes performance.json: Rscript tests/data/performance.R (lme4 1.1-31, glmmTMB 1.1.5, performance
# 0.10.2).
suppressMessages({library(lme4); library(glmmTMB); library(performance)})
data(epil2)
zinb <- read.csv("tests/data/zinb.csv")
vif <- function(m, ...) { v <- as.data.frame(check_collinearity(m, ...)); setNames(as.list(v$VIF), v$Term) }
dispersion <- function(m) unclass(check_overdispersion(m))[c("chisq_statistic", "dispersion_ratio",
                                                             "residual_df", "p_value")]
zeros <- function(m) unclass(check_zeroinflation(m))[c("predicted.zeros", "observed.zeros", "ratio")]
told <- function(m) list(vif = suppressWarnings(vif(m)), dispersion = dispersion(m), zeros = zeros(m))
epil <- glmer(y ~ Base * trt + Age + factor(period) + (1 | subject), epil2, poisson)
out <- list(
  epil = told(epil),
  poisson = told(glmer(y ~ x + z + x:z + (1 | g), zinb, poisson)),
  negative_binomial = told(glmmTMB(y ~ x + z + x:z + (1 | g), zinb, nbinom2)),
  cbpp = list(dispersion = dispersion(
    glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial))),
  inflated = list(
    vif = vif(zi <- glmmTMB(y ~ x + z + (1 | g), zinb, nbinom2, ziformula = ~ x + z)),
    zero_inflation = vif(zi, component = "zero_inflated")))
writeLines(jsonlite::toJSON(out, digits = NA, auto_unbox = TRUE, pretty = TRUE),
           "tests/data/performance.json")
