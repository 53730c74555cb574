"""Tests against one real service at a time."""
