"""Whether all bytes of a file came: by its structure, and by the gaps in it."""
