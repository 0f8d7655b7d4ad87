"""Sphinx's settings for the pages of this folder: `make docs` writes out/site, which needs no network."""

project = "thinkrec"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_static_path = html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
myst_heading_anchors = 3  # links may lead to headings, such as teacher.md#what-is-kept
