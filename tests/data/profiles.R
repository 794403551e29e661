# R 4.2.2, lme4 1.1-31, glmmTMB 1.1.5: the limits of `profiles.json`, of glmer's models by Laplace's
# approximation. `cbpp`, `epil2` are the data sets of sklmm.datasets, `crossed` that of the JSON.
library(lme4)
library(glmmTMB)
cbpp$period <- factor(cbpp$period)
m <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, family = binomial)
confint(m, method = "profile", oldNames = FALSE)
m <- glmer(y ~ x + (1 | a) + (1 | b), crossed, family = poisson)
confint(m, method = "profile", oldNames = FALSE)
m <- glmmTMB(y ~ Base + (1 | subject), epil2, family = nbinom2)
confint(m, method = "profile", parm = 1:4) # of log(1 / dispersion), and of the log of the SD
