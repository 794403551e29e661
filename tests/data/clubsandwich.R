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
# Tests of several coefficients, by every type: "HTZ".
wald <- function(model, cluster, C) {
  found <- lapply(types, function(type) {
    t <- Wald_test(model, constraints = C, vcov = vcovCR(model, cluster = cluster, type = type),
                   test = "HTZ")
    list(F = t$Fstat, df = t$df_num, ddf = t$df_denom, p = t$p_val)
  })
  names(found) <- types
  found
}
fit <- lmer(score ~ Machine + (1 | Worker) + (1 | Worker:Machine), Machines, control = tight)
out$wald_machines <- wald(fit, as.character(Machines$Worker), constrain_zero(2:3, reg_ex = FALSE))
some$Square <- some$Days^2
some$Half <- as.numeric(as.integer(some$Subject) %% 2 == 0)
fit <- lmer(Moved ~ Days + Square + Half + (1 | Clinic) + (1 | Clinic:Subject), some, control = tight)
out$wald_nested <- wald(fit, some$Clinic, constrain_zero(2:4, reg_ex = FALSE))
out$wald_equal <- wald(fit, some$Clinic, matrix(c(0, 1, -1, 0, 0, 0, 1, 1), 2, byrow = TRUE))
fit <- lme(Reaction ~ Days + Square, random = ~ 1 | Subject, data = some,
           weights = varFixed(~ I(1 / w)),
           control = lmeControl(tolerance = 1e-12, msTol = 1e-12, opt = "nlminb"))
out$wald_precisions <- wald(fit, as.character(some$Subject), constrain_zero(2:3, reg_ex = FALSE))
# car's type II: a term with its interaction, but what is uncorrelated with the interaction by vcov.
some$Third <- factor(as.integer(some$Subject) %% 3)
fit <- lmer(Reaction ~ Third * Days + (1 | Subject), some, control = tight)
V <- vcovCR(fit, cluster = as.character(some$Subject), type = "CR2")
one_term <- function(own) {
  I <- diag(6)
  L1 <- I[c(own, 5:6), ]
  crossed <- qr(L1 %*% as.matrix(V) %*% t(I[5:6, ]))
  L <- t(qr.Q(crossed, complete = TRUE)[, -(1:2), drop = FALSE]) %*% L1
  t <- Wald_test(fit, constraints = L, vcov = V, test = "HTZ")
  c(t$Fstat, t$df_num, t$df_denom, t$p_val)
}
out$type_two <- list(Third = one_term(2:3), Days = one_term(4))
write_json(out, "clubsandwich.json", digits = 15, auto_unbox = FALSE, pretty = FALSE)
