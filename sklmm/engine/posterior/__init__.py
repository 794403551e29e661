"""From the last step of an algorithm to what a fit leaves behind."""
