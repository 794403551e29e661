"""TensorFlow and compiled steps."""
