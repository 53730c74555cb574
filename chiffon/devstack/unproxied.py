"""HTTP to this machine, whatever proxy the environment names."""

from __future__ import annotations

import requests


def session() -> requests.Session:
    """Return a session that asks no proxy: one would look for 127.0.0.1 on its own machine."""
    unproxied = requests.Session()
    unproxied.trust_env = False
    return unproxied
