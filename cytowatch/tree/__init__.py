"""The root on disk: where each uploaded file is, and the index that finds it fast."""
