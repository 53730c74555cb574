"""How gunicorn serves the API; each value may be overridden on its command line."""

import logging

from chiffon.api.listening import OpenToAll, check_addresses
from chiffon.config import SettingsError, settings
from chiffon.ledger import address
from chiffon.logs import configure

wsgi_app = "wsgi:app"
bind = "127.0.0.1:8000"
workers = 2
# A request that waits (`Prefer: wait`) holds a thread, not a process; a thread stays with a client that goes on asking.
worker_class = "chiffon.api.serving.StayingWorker"
threads = 16
graceful_timeout = 10  # seconds for requests under way when it is told to stop


def on_starting(server):
    """Refuse to listen where anybody could have work done; say everything in one form."""
    try:
        configure(settings())
        address.check(settings())
        check_addresses(settings(), [address[0] for address in server.cfg.address if isinstance(address, tuple)])
    except (SettingsError, OpenToAll) as error:
        raise SystemExit(f"chiffon: {error}") from None
    logger = logging.getLogger("gunicorn.error")
    logger.handlers[:] = []
    logger.propagate = True
