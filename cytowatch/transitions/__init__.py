"""Every change of status of an uploaded file."""
