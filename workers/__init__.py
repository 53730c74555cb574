"""The agents' work: plain functions, one module a family."""
