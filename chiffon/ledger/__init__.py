"""Postgres, and the only room with SQL: every statement has a name, an arrow and a guard."""
