"""What error messages of several families have in common."""


def listed(names):
    """Names as an error message shows them."""
    return ", ".join(map(repr, names))


def needs_tensorflow(what, error, instead=""):
    """The ImportError of an installation without TensorFlow."""
    return ImportError(
        f"{what} needs TensorFlow, which cannot be imported ({error}): pip install tensorflow "
        f'"tensorflow-probability[tf]"{instead}.'
    )
