"""TensorFlow, compiled steps, and threads."""
