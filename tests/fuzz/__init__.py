"""Fuzzing of every parser that is our own, and of the whole daemon."""
