# Kenward-Roger and Satterthwaite by pbkrtest 0.5.2, lmerTest 3.1-3, emmeans 1.8.4 and lme4 1.1-31 on R 4.2.2:
#   Rscript kenward_roger.R > kenward_roger.json
# Run in this directory. Each case has its columns, and of its model vcovAdj, tests of coefficients, of terms by types II and III.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(emmeans); library(jsonlite)})
out <- list()
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.1, rhoend = 1e-9, maxfun = 1e5))

# Type II by Wald's statistic of a term and its relatives less theirs: rows of the term, made uncorrelated with the relatives.
type2 <- function(m, term) {
  X <- model.matrix(m); assign <- attr(X, "assign"); fac <- attr(terms(m), "factors"); names <- colnames(fac)
  vars <- function(t) rownames(fac)[fac[, t] > 0]
  relatives <- setdiff(names[sapply(names, function(t) all(vars(term) %in% vars(t)))], term)
  mine <- which(assign == match(term, names)); others <- which(assign %in% match(relatives, names))
  V <- as.matrix(vcov(m)); L <- diag(ncol(X))[mine, , drop = FALSE]
  if (length(others)) L[, others] <- -V[mine, others, drop = FALSE] %*% solve(V[others, others])
  L
}
wald <- function(m, L, kr) {
  if (kr) { t <- KRmodcomp(m, L)$test["Ftest", ]; return(list(F = t$stat, df = t$ndf, ddf = t$ddf, p = t$p.value)) }
  b <- L %*% fixef(m); w <- c(t(b) %*% solve(L %*% as.matrix(vcov(m)) %*% t(L), b))
  list(chi2 = w, df = nrow(L), p = pchisq(w, nrow(L), lower.tail = FALSE))
}
case <- function(name, formula, data, ...) {
  d <- droplevels(data); m <- suppressMessages(lmerTest::lmer(formula, d, ..., control = control))
  names <- attr(terms(m), "term.labels")
  table <- function(a) lapply(setNames(seq_along(names), names), function(i) list(F = a[i, "F value"], df = a[i, "NumDF"], ddf = a[i, "DenDF"], p = a[i, "Pr(>F)"]))
  coefs <- function(ddf) { s <- coef(summary(m, ddf = ddf)); list(estimate = s[, "Estimate"], std_error = s[, "Std. Error"], df = s[, "df"], p = s[, "Pr(>|t|)"]) }
  out[[name]] <<- list(
    formula = paste(deparse(formula), collapse = " "),
    data = lapply(d[all.vars(formula)], function(v) if (is.factor(v)) as.character(v) else v),
    theta = as.data.frame(VarCorr(m))$sdcor, vcov_adj = as.matrix(vcovAdj(m)),
    kr = coefs("Kenward-Roger"), satterthwaite = coefs("Satterthwaite"),
    type3_kr = table(anova(m, type = 3, ddf = "Kenward-Roger")), type3_satterthwaite = table(anova(m, type = 3)),
    type2_kr = lapply(setNames(names, names), function(t) wald(m, type2(m, t), TRUE)),
    type2_chi2 = lapply(setNames(names, names), function(t) wald(m, type2(m, t), FALSE)),
    type3_chi2 = lapply(show_tests(anova(m, type = 3)), function(L) wald(m, L, FALSE)))
}

data(Machines, package = "nlme"); Machines <- as.data.frame(Machines); Machines$Machine <- factor(as.character(Machines$Machine)); Machines$Worker <- factor(as.character(Machines$Worker))
case("machines_missing", score ~ Machine + (1 | Worker) + (1 | Worker:Machine), Machines[-c(2, 3, 6, 11, 17, 18, 25, 26, 27, 40, 51), ])
case("machines_slopes", score ~ Machine + (0 + Machine | Worker), Machines[-c(2, 3, 6, 11, 17, 18, 25, 40, 51), ])
gone <- c(1:3, 15, 16, 40:43, 77, 99:101, 150:156)
case("sleepstudy", Reaction ~ Days + (Days | Subject), sleepstudy[-gone, ])
case("sleepstudy_diag", Reaction ~ Days + (Days || Subject), sleepstudy[-gone, ])
# No variance between groups: Kenward and Roger's degrees of freedom are those of groups all the same.
set.seed(4)
flat <- data.frame(arm = rep(c("a", "b"), each = 20), group = factor(rep(1:10, each = 4)))
noise <- rnorm(40); flat$y <- round(noise - 0.9 * ave(noise, flat$group) + 0.3 * (flat$arm == "b"), 3)
flat$arm <- factor(flat$arm)
case("zero_variance", y ~ arm + (1 | group), flat)
# Factors of unequal cells, a product with a number, and crossed effects.
set.seed(1)
n <- 150
d <- data.frame(A = factor(sample(c("a", "b", "c"), n, TRUE, c(.5, .3, .2))), B = factor(sample(c("u", "v"), n, TRUE, c(.7, .3))), x = round(rnorm(n, 1), 3), g = factor(sample(12, n, TRUE)), h = factor(sample(7, n, TRUE)))
d$y <- round(as.integer(d$A) * 0.4 + 0.5 * d$x * (d$B == "v") + rnorm(12)[d$g] * 0.8 + rnorm(7)[d$h] * 0.5 + 0.3 * rnorm(12)[d$g] * d$x + rnorm(n), 3)
case("crossed", y ~ A * B + x + (1 | g) + (1 | h), d)
case("with_number", y ~ A * x + B + (1 + x | g) + (1 | h), d)
# lmerTest tests B at the first level of A: with sum-to-zero codes the coefficient of B is what is asked.
case("nested", y ~ B / A + (1 | g), d)
m <- lmerTest::lmer(y ~ B / A + (1 | g), d, contrasts = list(A = "contr.sum", B = "contr.sum"), control = control)
for (rule in c("Kenward-Roger", "Satterthwaite")) {
  b <- coef(summary(m, ddf = rule))["B1", ]
  out$nested[[c("Kenward-Roger" = "type3_kr", Satterthwaite = "type3_satterthwaite")[rule]]]$B <-
    list(F = b[["t value"]]^2, df = 1, ddf = b[["df"]], p = b[["Pr(>|t|)"]])
}
out$nested$type3_chi2$B <- list(chi2 = coef(summary(m, ddf = "Satterthwaite"))["B1", "t value"]^2, df = 1)
case("two_numbers", y ~ A * B * x + (1 | g), d)
data(InstEval, package = "lme4")
some <- InstEval[as.integer(InstEval$d) %% 40 == 3 & as.integer(InstEval$s) %% 3 == 1, ]
case("insteval", y ~ service * studage + (1 | s) + (1 | d), data.frame(y = some$y, service = factor(paste0("s", some$service)), studage = factor(paste0("a", some$studage)), s = factor(some$s), d = factor(some$d)))

# Marginal means and pairs, with the combinations of coefficients that they are.
means <- function(name, formula, data, ...) {
  m <- lmerTest::lmer(formula, data, control = control)
  for (rule in c("kenward-roger", "satterthwaite")) {
    e <- emmeans(m, ..., lmer.df = rule); pairs <- pairs(e)
    told <- function(g) { s <- as.data.frame(summary(g)); list(L = g@linfct, SE = s$SE, df = s$df, p = s$p.value) }
    out[[name]][[paste0("means_", sub("-.*", "", rule))]] <<- list(means = told(e), pairs = told(pairs))
  }
}
missing <- droplevels(Machines[-c(2, 3, 6, 11, 17, 18, 25, 26, 27, 40, 51), ])
means("machines_missing", score ~ Machine + (1 | Worker) + (1 | Worker:Machine), missing, ~ Machine)
means("crossed", y ~ A * B + x + (1 | g) + (1 | h), d, ~ A)

# Prior weights: pbkrtest 0.5.2 takes them for 1, so the rows are multiplied by their roots.
w <- sample(1:4, n, TRUE); dw <- data.frame(y = d$y * sqrt(w), one = sqrt(w), x = d$x * sqrt(w), g = d$g)
m <- lmerTest::lmer(y ~ 0 + one + x + (0 + one | g), dw, control = control)
b <- coef(summary(m, ddf = "Kenward-Roger"))
out$weights <- list(data = list(y = d$y, x = d$x, g = as.character(d$g), w = w), kr = list(estimate = b[, "Estimate"], std_error = b[, "Std. Error"], df = b[, "df"]))

# Wald's chi-square of a binomial model by 25 points.
herds <- cbpp; herds$kind <- factor(ifelse(as.integer(cbpp$herd) %% 3 == 0, "k", "l"))
contrasts(herds$period) <- contr.sum(4); contrasts(herds$kind) <- contr.sum(2)
m <- glmer(cbind(incidence, size - incidence) ~ period * kind + (1 | herd), herds, binomial, nAGQ = 25, control = glmerControl(optCtrl = list(rhoend = 1e-9)))
assign <- attr(model.matrix(m), "assign")
rows <- function(i) diag(8)[which(assign == i), , drop = FALSE]
out$cbpp <- list(data = list(herd = as.character(herds$herd), incidence = herds$incidence, size = herds$size, period = as.character(herds$period), kind = as.character(herds$kind)),
  type3 = lapply(c(period = 1, kind = 2, `period:kind` = 3), function(i) wald(m, rows(i), FALSE)),
  type2 = lapply(c(period = "period", kind = "kind", `period:kind` = "period:kind"), function(t) wald(m, type2(m, t), FALSE)))
cat(toJSON(out, digits = 10, auto_unbox = TRUE, dataframe = "columns", na = "null"))
