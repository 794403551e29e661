"""Covariances of the coefficients of a level, as factors L(theta) with Sigma = L L^T."""
