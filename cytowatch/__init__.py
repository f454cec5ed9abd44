"""cytowatch: a drop folder that turns whole-slide images into deployed pyramids."""

__all__ = ["__version__"]

__version__ = "0.9.0"
