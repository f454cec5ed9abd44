"""The index: a cache of the tree, which can be rebuilt at any time."""
