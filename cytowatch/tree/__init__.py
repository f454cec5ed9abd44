"""The root on disk: where an uploaded file lies, and the index that finds it fast."""
