"""The private RabbitMQ and Postgres keep what they promise to the tests that break them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import amqp
import psutil
import psycopg2
import pytest

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ, broker_version
from tests.services import Services


@contextlib.contextmanager
def session(url: str) -> Iterator[Any]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        yield cursor


def channel_to(node: PrivateRabbitMQ) -> amqp.Channel:
    user, password = node.url.removeprefix("amqp://").partition("@")[0].split(":")
    connection = amqp.Connection(host=f"127.0.0.1:{node.port}", userid=user, password=password)
    connection.connect()
    channel = connection.channel()
    channel.confirm_select()
    return channel


def test_a_durable_message_outlives_a_killed_broker_at_the_same_url(rabbitmq: PrivateRabbitMQ) -> None:
    url, channel = rabbitmq.url, channel_to(rabbitmq)
    channel.queue_declare("kept", durable=True, auto_delete=False)
    channel.basic_publish_confirm(amqp.Message("hello", delivery_mode=2), routing_key="kept")
    rabbitmq.kill()
    assert not rabbitmq.is_running()
    with pytest.raises(ConnectionRefusedError):
        broker_version(url)
    rabbitmq.start()
    assert rabbitmq.url == url
    message = channel_to(rabbitmq).basic_get("kept", no_ack=True)
    assert message.body == "hello"


def test_a_wiped_broker_has_forgotten_its_queues(rabbitmq: PrivateRabbitMQ) -> None:
    channel_to(rabbitmq).queue_declare("gone", durable=True, auto_delete=False)
    rabbitmq.wipe()
    rabbitmq.start()
    with pytest.raises(amqp.NotFound):
        channel_to(rabbitmq).queue_declare("gone", passive=True)


def test_a_paused_broker_answers_nothing_until_it_is_resumed(rabbitmq: PrivateRabbitMQ) -> None:
    rabbitmq.pause()
    with pytest.raises(OSError, match="timed out"):
        broker_version(rabbitmq.url)
    rabbitmq.resume()
    assert broker_version(rabbitmq.url) == rabbitmq.version


def test_each_test_has_a_virtual_host_that_it_may_use(broker_url: str, services: Services) -> None:
    with services.fresh_broker() as another:
        assert another != broker_url
    assert broker_version(broker_url)


def test_a_commit_outlives_a_killed_postgres_at_the_same_url(postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    with session(url) as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS one")
    postgres.kill()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(url)
    postgres.start()
    with session(url) as cursor:
        cursor.execute("SELECT one FROM kept")
        assert cursor.fetchone() == (1,)
    postgres.drop_database(url)


def test_a_restart_of_postgres_ends_its_sessions(postgres: PrivatePostgres, database_url: str) -> None:
    with session(database_url) as cursor:
        postgres.restart()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")


def test_databases_are_empty_and_apart(database_url: str, services: Services) -> None:
    with session(database_url) as cursor:
        cursor.execute("CREATE TABLE mine (one int)")
    with services.fresh_database("template1") as other, session(other) as cursor:
        cursor.execute("SELECT to_regclass('mine')")
        assert cursor.fetchone() == (None,)


def test_a_service_listens_on_loopback_only_and_has_a_password(
    rabbitmq: PrivateRabbitMQ, postgres: PrivatePostgres
) -> None:
    wrong = postgres.url.replace(postgres.url.split(":")[2].partition("@")[0], "wrong")
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(wrong)
    with pytest.raises((amqp.AMQPError, OSError)):
        broker_version(f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}//")
    listening = {
        connection.laddr.ip
        for service in (*rabbitmq.processes, *postgres.processes)
        for connection in psutil.Process(service.pid).net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert listening <= {"127.0.0.1", "::1"}
