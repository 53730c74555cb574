"""Writes of the ledger, each with what it says and leaves when it is repeated for want of an answer."""
