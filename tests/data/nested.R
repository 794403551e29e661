# The likelihood ratios of `nested.json`, of families within one another, by glmmTMB.
suppressMessages({library(glmmTMB); library(jsonlite)})
set.seed(1)
n <- 240; g <- rep(1:24, each=10); x <- round(rnorm(n),3); b <- rnorm(24, 0, .4)
mu <- exp(.8 + .3*x + b[g])
y <- rnbinom(n, size=3, mu=mu) * rbinom(n, 1, .75)
size <- sample(3:9, n, TRUE); p <- plogis(-.3 + .4*x + b[g]); s <- rbinom(n, size, rbeta(n, 6*p, 6*(1-p)))
d <- data.frame(g=factor(g), x, y, s, f=size-s)
fit <- function(fam, zi=~0, ...) glmmTMB(y ~ x + (1|g), d, family=fam, ziformula=zi)
m <- list(
  poisson=fit(poisson), zip=fit(poisson, ~1), nb=fit(nbinom2), zinb=fit(nbinom2, ~1), zipx=fit(poisson, ~x), zinbx=fit(nbinom2, ~x),
  zinb1=fit(nbinom1, ~1),
  hurdle_poisson=fit(truncated_poisson, ~1), hurdle_nb=fit(truncated_nbinom2, ~1),
  binomial=glmmTMB(cbind(s,f) ~ x + (1|g), d, family=binomial),
  betabinomial=glmmTMB(cbind(s,f) ~ x + (1|g), d, family=betabinomial))
ll <- lapply(m, function(f) as.numeric(logLik(f)))
pairs <- list(c("zip","zinb"), c("zip","zinb1"), c("nb","zinb"), c("zipx","zinbx"), c("hurdle_poisson","hurdle_nb"), c("binomial","betabinomial"))
an <- lapply(pairs, function(p) { a <- anova(m[[p[1]]], m[[p[2]]]); list(small=p[1], large=p[2], chi2=a$Chisq[2], df=a$`Chi Df`[2], p=a$`Pr(>Chisq)`[2]) })
versions <- sprintf("R %s, glmmTMB %s", getRversion(), packageVersion("glmmTMB"))
write_json(list(versions=versions, rows=list(g=g, x=x, y=y, s=s, f=size-s), loglik=ll, anova=an), "nested.json", digits=NA, auto_unbox=TRUE)
