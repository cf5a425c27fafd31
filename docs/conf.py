"""Configuration of Sphinx: ``sphinx-build -W -n -b html docs docs/_build/html``."""

import inspect
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The package beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import attention_sampling

project = "attention-sampling"
author = "the attention-sampling authors"
version = release = attention_sampling.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "code"
math_number_all = False

html_theme = "furo"
html_title = f"attention-sampling {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Input shape", "Output shape", "Reference"]

# Names of other packages: their documentation is not looked up, which would need the
# network.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|keras|numpy|np|os|pathlib|PIL|tensorflow|tf|typing)\..*"),
    ("py:class", r"attention_sampling\..*\._\w+"),
    ("py:.*", r"(KerasTensor|Parsed|optional)"),
]


def show_init_signature(app, what, name, obj, options, signature, return_annotation):
    """Show the arguments of ``__init__``: those of Keras' ``__new__`` say nothing."""
    if what != "class" or "keras" not in {
        base.__module__.partition(".")[0] for base in inspect.getmro(obj)
    }:
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    return str(inspect.Signature(parameters)), ""


def setup(app):
    """Connect the function above."""
    app.connect("autodoc-process-signature", show_init_signature)
