"""HTTP, and the only room with Flask: it reads requests, asks the use cases, and words the answers."""
