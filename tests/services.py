"""The services that the tests run against: started when the first test asks, ended with the session."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import amqp
import requests

from chiffon.config import Settings
from chiffon.devstack.guardian import Guardian
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ, broker_version, call_management

BROKER_VARIABLE = "CHIFFON_TEST_BROKER_URL"
"""Names a running broker to use instead of the private one; tests that kill a broker use the private one still."""

POOL_VARIABLE = "CHIFFON_TEST_POOL"
"""Names the pool of the agents that tests start: `prefork` (the default) or `threads`."""


class GivenBroker:
    """A broker that somebody else runs. With its management API each test has a virtual host of its own.

    The API is looked for ten thousand ports above AMQP, where RabbitMQ has it by default.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        port = (parts.port or 5672) + 10_000
        self.management_url = f"http://{parts.username}:{parts.password}@{parts.hostname}:{port}"

    @property
    def version(self) -> str:
        """The version that the broker names in the handshake."""
        return broker_version(self.url)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        """Lend a URL at which nothing has been declared."""
        name = uuid4().hex
        try:
            call_management(self.management_url, "PUT", f"/api/vhosts/{name}")
        except OSError:
            self._clear()
            yield self.url
            return
        parts = urlsplit(self.url)
        yield f"{parts.scheme}://{parts.netloc}/{quote(name)}"
        call_management(self.management_url, "DELETE", f"/api/vhosts/{name}")

    def _clear(self) -> None:
        parts = urlsplit(self.url)
        with amqp.Connection(
            host=f"{parts.hostname}:{parts.port or 5672}",
            userid=parts.username or "guest",
            password=parts.password or "guest",
        ) as connection:
            for queue in ("work_queue", "dlx_queue"):
                connection.channel().queue_delete(queue)
            for exchange in ("work", "dlx_exchange"):
                connection.channel().exchange_delete(exchange)


class Services:
    """Everything real that this session has running."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    @cached_property
    def folder(self) -> Path:
        """A folder for the session's services, removed at its end."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="chiffon-tests-")))

    @cached_property
    def guardian(self) -> Guardian:
        """What ends every process of the session, should pytest itself be killed."""
        guardian = Guardian()
        self._open.callback(guardian.close)
        guardian.remove_at_end(self.folder)
        return guardian

    @cached_property
    def rabbitmq(self) -> PrivateRabbitMQ:
        """The private broker, which tests may kill, pause and wipe. Raises MissingProgram."""
        assert self.guardian
        node = PrivateRabbitMQ(self.folder / "rabbitmq", management=True)
        node.start()
        self._open.callback(node.kill)  # nobody wants its data, and an orderly stop takes seconds
        return node

    @cached_property
    def postgres(self) -> PrivatePostgres:
        """The private Postgres, which tests may kill and pause. Raises MissingProgram."""
        server = PrivatePostgres(self.folder / "postgres")
        self.guardian.remove_at_end(server.data)
        server.start()
        self._open.callback(server.stop)
        return server

    @cached_property
    def migrated(self) -> str:
        """The name of a database with the current schema, to copy from."""
        from chiffon.ledger import migrate

        name = "chiffon_template"
        migrate.upgrade(Settings(database_url=self.postgres.create_database(name)).direct_url)
        return name

    @cached_property
    def given_broker(self) -> GivenBroker | None:
        """The broker that the environment names, if it names one."""
        url = os.environ.get(BROKER_VARIABLE)
        return GivenBroker(url) if url else None

    def broker_in_words(self) -> str:
        """Name the broker and its version, for the report's header."""
        if self.given_broker is not None:
            return f"RabbitMQ {self.given_broker.version} ({BROKER_VARIABLE})"
        return f"RabbitMQ {self.rabbitmq.version} (private)"

    @contextlib.contextmanager
    def fresh_broker(self) -> Iterator[str]:
        """Lend the URL of an empty virtual host."""
        if self.given_broker is not None:
            with self.given_broker.fresh() as url:
                yield url
            return
        url = self.rabbitmq.create_vhost()
        yield url
        with contextlib.suppress(requests.HTTPError):  # a test that wiped the broker has taken it along
            self.rabbitmq.drop_vhost(url)

    @contextlib.contextmanager
    def fresh_database(self, template: str) -> Iterator[str]:
        """Lend the URL of a new database that is a copy of ``template``."""
        url = self.postgres.create_database(template=template)
        yield url
        self.postgres.drop_database(url)

    def close(self) -> None:
        """End everything."""
        self._open.close()
