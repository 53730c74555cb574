"""Serving: gunicorn's threads, which stay with a client while it goes on asking."""

from __future__ import annotations

import select
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from chiffon.garbage import spare_what_stays

STAYS = 2
"""Milliseconds for which a thread waits for the next request of its client."""


class StayingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker whose thread answers its client's next request too, if it comes at once and nobody waits for a thread.

    In gunicorn's own, each request goes by way of the main thread, twice: for who sends one after the other that is a
    tenth of what a dispatch costs.
    """

    def run(self) -> None:
        """As gunicorn's, once the application is loaded."""
        spare_what_stays()
        super().run()

    def handle(self, conn: Any) -> Any:
        """As gunicorn's, for one request or for some; what it returns is about the last."""
        is_kept = super().handle(conn)
        while is_kept is True and self._has_thread_for_each() and not conn.is_http2 and _asks_again(conn.sock):
            is_kept = super().handle(conn)
        return is_kept

    def _has_thread_for_each(self) -> bool:
        """Else those who stay would keep the others out."""
        return bool(self.alive and self.nr_conns <= self.cfg.threads)


def _asks_again(sock: Any) -> bool:
    """Whether something comes within a moment. (What TLS has decrypted already is found by gunicorn.)"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(STAYS))
