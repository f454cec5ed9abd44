"""The daemon's life: its start, its duties, and what it reports meanwhile."""
