"""One file an algorithm: REML, Laplace's approximation, Monte Carlo EM, the tutorial's loop."""
