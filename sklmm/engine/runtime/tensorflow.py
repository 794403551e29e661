"""TensorFlow, imported quietly and once; the one compiler decorator; devices.

Compiled steps are module-level functions that take their data as arguments, so one compilation
serves every fit whose arrays have the same shapes: `runtime.compilation` makes the folds of a
cross-validation share them.
"""

import contextlib
import logging
import os
import re
import tempfile
import threading

from sklmm._threads import n_threads
from sklmm.engine.runtime.compilation import tell

#: Start-up lines of TensorFlow and its libraries, which TF_CPP_MIN_LOG_LEVEL does not reach.
_START_UP = re.compile(
    rb"^(WARNING: All log messages before absl|[IWE]\d{4} [\d:.]+ +\d+ |To enable )"
)
_lock = threading.Lock()


@contextlib.contextmanager
def quiet():
    """Hold back start-up lines that native code writes to stderr; everything else is passed on."""
    with _lock, tempfile.TemporaryFile() as held:
        try:
            saved = os.dup(2)
        except OSError:
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            rest = [line for line in held if not _START_UP.match(line)]
            os.write(2, b"".join(rest))


def _import():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "OMP_NUM_THREADS" in os.environ:
        # joblib's share of the cores for a worker; TensorFlow would start a thread for every core.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(n_threads()))
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(n_threads()))
    with quiet():
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
        gpus = tensorflow.config.list_physical_devices("GPU")
        for gpu in gpus:
            # Fails when the user's own code has already started the GPU: then it is theirs to set.
            with contextlib.suppress(RuntimeError):
                tensorflow.config.experimental.set_memory_growth(gpu, True)
    tensorflow.get_logger().addFilter(_expected_compilation)
    return tensorflow


def _expected_compilation(record: logging.LogRecord):
    """Drop TensorFlow's advice on retracing when it is about a function made here.

    Steps are compiled once a shape, a likelihood's graphs are traced once.
    """
    message = record.getMessage()
    ours = f"{compiled.__name__}.<locals>", f"{traced.__name__}.<locals>"
    return not ("retracing" in message and any(name in message for name in ours))


tf = _import()

#: Compilations so far, by function name.
compilations: dict[str, int] = {}


def compiled(function, jit=True):
    """`function` compiled by XLA, or a mere graph, once per structure and shapes of arguments."""
    name = function.__name__

    def counted(*args, **kwargs):
        compilations[name] = compilations.get(name, 0) + 1
        tell(name)
        return function(*args, **kwargs)

    counted.__name__ = name
    jitted = tf.function(counted, jit_compile=jit, autograph=False)

    jitted.__doc__ = function.__doc__
    return jitted


def traced(function, *signature):
    """`function` of arrays as a graph for all shapes of a signature, not compiled; NumPy's back."""

    def traced_one(*arrays):
        return function(*arrays)

    graph = tf.function(traced_one, signature, autograph=False)
    return lambda *arrays: [part.numpy() for part in graph(*arrays)]


def check_device(device):
    """Name of an available device; None is TensorFlow's own choice, the GPU when it sees one."""
    if device is None:
        return None
    try:
        spec = tf.DeviceSpec.from_string(device if ":" in device[:5] else f"/{device}")
        spec = tf.DeviceSpec.from_string(f"/device:{device}") if spec.device_type is None else spec
        names = [d.name for d in tf.config.list_logical_devices()]
        if spec.device_type is None:
            raise ValueError(device)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            f"device={device!r} is not a device: give None, 'CPU:0' or 'GPU:0'."
        ) from None
    wanted = f"{spec.device_type}:{spec.device_index or 0}".upper()
    if not any(name.upper().endswith(wanted) for name in names):
        raise ValueError(f"device={device!r} is not available; TensorFlow sees {', '.join(names)}.")
    return f"/device:{wanted}"
