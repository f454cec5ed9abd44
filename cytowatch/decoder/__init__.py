"""The process that decodes: forked, walled in, and never believed."""
