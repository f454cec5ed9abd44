"""What is known of an uploaded file: its status, its names, its manifest, the reasons of an error."""
