"""The mixed-model equations: cross-products, and the ways to solve them."""
