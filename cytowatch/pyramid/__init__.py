"""Pyramids: read the source, write tiles and levels, describe and verify what was written."""
