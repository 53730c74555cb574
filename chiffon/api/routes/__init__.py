"""The routes, a blueprint a noun: each view reads, asks one use case, and answers."""
