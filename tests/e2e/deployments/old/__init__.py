"""The version that is being replaced."""
