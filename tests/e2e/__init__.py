"""Tests against everything real."""
