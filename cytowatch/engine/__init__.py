"""Who does the work: scheduling, the way of one uploaded file, and its decoder process."""
