"""Private RabbitMQ, Postgres and processes on this machine, for `make up` and for the tests."""
