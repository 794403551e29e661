"""How a model is fitted: one file an algorithm, from the starting values to the last step."""
