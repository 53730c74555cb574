"""The machine that tries to break Chiffon: seeded faults on real processes, clients that remember, and an audit."""
