"""Chiffon's tests. A folder says what it needs running."""
