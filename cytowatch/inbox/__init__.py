"""From a dropped file to an uploaded one: watch, settle, claim."""
