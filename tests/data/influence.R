# Writes influence.json: R 4.2.2, lme4 1.1-31.
suppressMessages({library(lme4); library(jsonlite)})
data(sleepstudy, package = "lme4")
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12))
fit <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = tight)
out <- list(hatvalues = unname(hatvalues(fit)), cooks_distance = unname(cooks.distance(fit)))
# The rows 0 or 5 modulo 7 from 0 on left out: subjects of 7 or 8 rows.
some <- sleepstudy[!((1:180) - 1) %% 7 %in% c(0, 5), ]
fit <- lmer(Reaction ~ Days + (Days | Subject), some, control = tight)
deleted <- influence(fit, groups = "Subject", data = some)
out$dfbeta <- unname(dfbeta(deleted))
out$dfbetas <- unname(dfbetas(deleted))
out$vcov <- as.matrix(vcov(fit))
# The same at the estimated variances: generalised least squares of the rows left.
V <- as.matrix(crossprod(getME(fit, "Lambdat") %*% getME(fit, "Zt")) + diag(nrow(some))) * sigma(fit)^2
X <- getME(fit, "X"); y <- getME(fit, "y")
gls <- function(own) {
  W <- solve(V[own, own]); solve(t(X[own, ]) %*% W %*% X[own, ], t(X[own, ]) %*% W %*% y[own])
}
groups <- levels(some$Subject)
out$given <- t(sapply(groups, function(g) fixef(fit) - gls(some$Subject != g)))
out$given_rows <- t(sapply(1:nrow(some), function(i) fixef(fit) - gls(-i)))
write_json(out, "influence.json", digits = 12)
