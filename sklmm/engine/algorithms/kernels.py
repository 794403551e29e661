"""E-step kernels, one a file; `make_kernel` imports TensorFlow only for those that need it."""

from importlib import import_module

_KERNELS = {
    "Exact": ("algorithms.reml_exact", "ExactKernel"),
    "ConjugateGradient": ("algorithms.reml_cg", "CGKernel"),
    "HMC": ("latent.hmc", "HMCSampler"),
    "NUTS": ("latent.nuts", "NUTSSampler"),
}


def make_kernel(e_step):
    """The kernel for a parameter holder of `sklmm.steps`."""
    module, name = _KERNELS[type(e_step).__name__]
    kernel = getattr(import_module(f"sklmm.engine.{module}"), name)
    return kernel(**e_step.get_params(deep=False))
