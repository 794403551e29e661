# Writes clubsandwich.json: R 4.2.2, lme4 1.1-31, clubSandwich 0.5.8, nlme 3.1-162.
suppressMessages({library(lme4); library(nlme); library(clubSandwich); library(jsonlite)})
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12))
one <- function(model, cluster, type) {
  t <- coef_test(model, vcov = vcovCR(model, cluster = cluster, type = type), test = "Satterthwaite")
  list(estimate = t$beta, std_error = t$SE, df = t$df_Satt, p = t$p_Satt)
}
types <- c("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
every <- function(model, cluster) {
  out <- lapply(types, function(type) one(model, cluster, type))
  names(out) <- types
  c(out, list(vcov = as.matrix(vcov(model))))
}
data(sleepstudy, package = "lme4"); data(Machines, package = "nlme")
out <- list()
fit <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = tight)
out$sleepstudy_reml <- every(fit, sleepstudy$Subject)
fit <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE, control = tight)
out$sleepstudy_ml <- every(fit, sleepstudy$Subject)
# Clusters of three subjects, and rows left out: 0-based numbers that are 0 or 5 modulo 7.
gone <- ((1:180) - 1) %% 7 %in% c(0, 5)
some <- sleepstudy[!gone, ]
some$Clinic <- (as.integer(some$Subject) - 1) %/% 3
fit <- lmer(Reaction ~ Days + (Days | Subject), some, control = tight)
out$clinics <- every(fit, some$Clinic)
some$Moved <- some$Reaction + 40 * sin(2 * some$Clinic)
fit <- lmer(Moved ~ Days + (1 | Clinic) + (1 | Clinic:Subject), some, control = tight)
out$nested <- every(fit, some$Clinic)
Machines$Machine <- factor(as.character(Machines$Machine))
contrasts(Machines$Machine) <- contr.treatment(3)
fit <- lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), Machines, control = tight)
out$machines <- every(fit, as.character(Machines$Worker))
# Precisions: clubSandwich has none of lmer's models, but has nlme's.
some$w <- 1 + (1:nrow(some)) %% 3
fit <- lme(Reaction ~ Days, random = ~ 1 | Subject, data = some, weights = varFixed(~ I(1 / w)),
           control = lmeControl(tolerance = 1e-12, msTol = 1e-12, opt = "nlminb"))
out$precisions <- every(fit, as.character(some$Subject))
# A column that is one cluster's own.
some$Own <- as.numeric(some$Clinic == 2)
fit <- lmer(Reaction ~ Days + Own + (1 | Subject), some, control = tight)
out$own <- list(CR2 = one(fit, some$Clinic, "CR2"))
# Without random effects.
out$none <- every(lm(Reaction ~ Days, some), some$Subject)
write_json(out, "clubsandwich.json", digits = 15, auto_unbox = FALSE, pretty = FALSE)
