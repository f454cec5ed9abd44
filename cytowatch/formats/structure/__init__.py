"""The container formats, each parsed in one place."""
