"""E-step kernels, one a file; `make_kernel` imports TensorFlow only for those that need it."""

from importlib import import_module

_KERNELS = {
    "Exact": ("exact", "ExactKernel"),
    "ConjugateGradient": ("cg", "CGKernel"),
    "HMC": ("hmc", "HMCSampler"),
    "NUTS": ("nuts", "NUTSSampler"),
}


def make_kernel(e_step):
    """The kernel for a parameter holder of `sklmm.steps`."""
    module, name = _KERNELS[type(e_step).__name__]
    kernel = getattr(import_module(f"sklmm.engine.e_step.{module}"), name)
    return kernel(**e_step.get_params(deep=False))
