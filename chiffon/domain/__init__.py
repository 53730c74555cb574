"""What Chiffon knows without any engine: states, work types, policies, ids, values."""
