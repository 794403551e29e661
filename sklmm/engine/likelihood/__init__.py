"""The likelihood of a family as steps need it: hashable, in NumPy and in TensorFlow."""
