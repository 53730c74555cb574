"""The version that replaces it."""
