"""The audit: rules, each a function from the evidence to what it finds."""
