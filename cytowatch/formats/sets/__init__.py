"""The formats that are several files: which belong together, and to which slide."""
