"""From a dropped file to an uploaded file: watch, settle, claim."""
