"""``python -m cytowatch`` is the same as ``cytowatch``."""

from cytowatch.cli import main

main()
