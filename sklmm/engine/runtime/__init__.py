"""TensorFlow, threads, and who listens to a fit."""
