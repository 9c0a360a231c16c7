"""The panels of the application, one per file."""
