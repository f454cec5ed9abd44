"""Writing a pyramid: tiles, levels, directories."""
