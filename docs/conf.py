"""The documentation: `sphinx-build -n -W docs build/docs`, offline, notebooks executed."""

import os
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])  # of the notebooks' kernels
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ["TQDM_DISABLE"] = "1"

project = "jaxmix"
author = "The jaxmix developers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
]
html_theme = "furo"
html_title = f"jaxmix {release}"
exclude_patterns = ["_build", "jupyter_execute"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "code"
napoleon_use_rtype = False

# Other projects' inventories need the network; without it their names stay plain text.
if os.environ.get("JAXMIX_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/latest", None),
    }
# Types of private modules, such as what a mixer is, have no page.
nitpick_ignore_regex = [(r"py:.*", r"(?!jaxmix\.).*"), (r"py:.*", r"jaxmix\._.*")]
