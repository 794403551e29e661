"""Arrays to estimates: the EM loop, its E-step kernels and its M-steps."""
