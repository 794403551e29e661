# Rscript tables.R NAME FILE: a data set of lme4 or mlmRev as a CSV of columns g..., x... and y.
library(stats)
a <- commandArgs(TRUE)
models <- list(
  contraception = list("mlmRev", "Contraception", "district", ~ urban + age + livch,
                       function(d) as.numeric(d$use == "Y")),
  grouseticks = list("lme4", "grouseticks", c("BROOD", "INDEX", "LOCATION"), ~ YEAR + cHEIGHT,
                     function(d) d$TICKS),
  verbagg = list("lme4", "VerbAgg", c("id", "item"), ~ Anger + Gender + btype + situ,
                 function(d) as.numeric(d$r2 == "Y"))
)
model <- models[[a[1]]]
data(list = model[[2]], package = model[[1]])
d <- get(model[[2]])
groups <- as.data.frame(lapply(d[model[[3]]], as.integer))
columns <- as.data.frame(model.matrix(model[[4]], d)[, -1, drop = FALSE])
names(groups) <- paste0("g", seq_along(groups) - 1)
names(columns) <- paste0("x", seq_along(columns) - 1)
write.csv(cbind(groups, columns, y = model[[5]](d)), a[2], row.names = FALSE)
