"""The process that decodes: forked, sandboxed, and never trusted."""
