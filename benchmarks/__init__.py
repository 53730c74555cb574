"""The bench: Chiffon beside what others would use, in one run, on private services of its own."""
