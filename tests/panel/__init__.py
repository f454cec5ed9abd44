"""The panel: a real daemon's tree, a real server process, real requests."""
