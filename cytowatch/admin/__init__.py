"""What an admin asks for: retry, return, remove, verify, projects."""
