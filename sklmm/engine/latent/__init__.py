"""The latent variables of any family: their mode, their draws, and how they move with theta."""
