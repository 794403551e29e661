# Rscript systems.R SYSTEM FAMILY TASK TERM FILE: what worker.py is for Python's systems.
a <- commandArgs(TRUE)
names(a) <- c("system", "family", "task", "term", "file")
d <- read.csv(a["file"])
groups <- grep("^g", names(d), value = TRUE)
for (g in groups) d[[g]] <- factor(d[[g]])
terms <- c(grep("^x", names(d), value = TRUE), sprintf(a["term"], groups))
f <- as.formula(paste("y ~", paste(terms, collapse = " + ")))
family <- c(bernoulli = "binomial", poisson = "poisson", negative_binomial = "nbinom2")[a["family"]]
if (a["system"] == "lme4") {
  suppressMessages(library(lme4))
  fit <- function() {
    if (is.na(family)) lmer(f, d, REML = TRUE) else glmer(f, d, family = family)
  }
  sds <- function(m) as.data.frame(VarCorr(m))$sdcor
} else {
  suppressMessages(library(glmmTMB))
  fit <- function() {
    if (is.na(family)) glmmTMB(f, d, REML = TRUE) else glmmTMB(f, d, family = family)
  }
  sds <- function(m) c(sapply(VarCorr(m)$cond, function(v) sqrt(v[1])), sigma(m))
}
m <- if (a["task"] == "profile") fit()
task <- if (a["task"] == "profile") function() confint(m, quiet = TRUE) else fit
spent <- system.time(found <- task())
spent <- c(spent[["elapsed"]], spent[["user.self"]] + spent[["sys.self"]])
estimates <- if (a["task"] == "profile") found[, 1] else sds(found)
estimates <- sprintf("%.5f", estimates[is.finite(estimates)])
peak <- tryCatch(grep("VmHWM", readLines("/proc/self/status"), value = TRUE), error = function(e) "")
peak <- as.numeric(gsub("[^0-9]", "", peak)) / 1e6
cat(sprintf('RESULT {"first": [%.4f, %.4f], "second": null, "rest": [0, 0], "memory": %f,',
            spent[1], spent[2], peak),
    sprintf('"estimates": [%s]}\n', paste(estimates, collapse = ", ")))
