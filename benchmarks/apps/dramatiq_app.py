"""dramatiq with its default middleware and no results; run as a program, it publishes: `DEED COUNT`."""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.apps.deeds import DEEDS

broker = RabbitmqBroker(url=os.environ["BENCH_BROKER_URL"])
dramatiq.set_broker(broker)
actors = {name: dramatiq.actor(actor_name=name)(deed) for name, deed in DEEDS.items()}


def main(deed: str, count: int) -> None:
    """Publish ``count`` tasks, and wait until the broker has read them all."""
    for key in range(count):
        actors[deed].send(key)
    broker.close()  # it answers a goodbye after what came before it; at an exit without one, the last are lost at times


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
