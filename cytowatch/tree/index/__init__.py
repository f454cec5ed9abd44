"""The index: a cache of the tree that can be rebuilt at any time."""
