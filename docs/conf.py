"""How `make docs` builds docs/ and the API's reference as a site: Sphinx with MyST, which reads Markdown."""

import colmrl

project = "colmrl"
version = release = colmrl.__version__
copyright = "the colmrl authors, Apache-2.0"
html_title = f"colmrl {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["reference.md"] if tags.has("pages") else []  # noqa: F821  # pages alone: nothing is imported
myst_heading_anchors = 3
suppress_warnings = ["toc.not_readable"] if tags.has("pages") else []  # noqa: F821

default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "alabaster"
html_theme_options = {
    "description": "One vision-language retriever, at every size it can be served at",
    "page_width": "1100px",
}
html_show_sourcelink = False
