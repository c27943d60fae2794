"""What works on the project itself, run from its root: python -m tools.NAME."""
