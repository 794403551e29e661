"""Sphinx's configuration: pydata-sphinx-theme, numpydoc, and the gallery of `examples/`."""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import sklmm

project = "sklmm"
author = "the sklmm developers"
copyright = "2026, the sklmm developers"
version = release = sklmm.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "sg_execution_times.rst", "auto_examples/sg_execution_times.rst"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"sklmm {release}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
# Of the pages at the top only the reference has others below it to list in a column on the left.
html_sidebars = {"*": [], "api": ["sidebar-nav-bs"]}
html_math_renderer = "mathml"

autosummary_generate = True
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": str(Path(__file__).parents[1] / "examples"),
    "gallery_dirs": "auto_examples",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 0,
    "matplotlib_animations": False,
}

#: Roles of inherited docstrings, to labels and terms of scikit-learn's own documentation.
FOREIGN = re.compile(r":(?:ref|term):`([^`<]+?)(?:\s*<[^`>]+>)?`")


def without_foreign_labels(app, what, name, obj, options, lines):
    """Leave the words of a reference that scikit-learn's documentation alone can resolve."""
    lines[:] = [FOREIGN.sub(r"\1", line) for line in lines]


def write_mathml(self, node):
    """Write a formula as MathML, which browsers show by themselves, without a script's network."""
    if isinstance(node, nodes.math_block):
        self.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>")
    else:
        self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def setup(app):
    """Sphinx's hook."""
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    app.connect("autodoc-process-docstring", without_foreign_labels)
