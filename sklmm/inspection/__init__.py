"""Reports and displays of fitted models."""
