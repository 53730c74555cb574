"""RabbitMQ on the client's side: topology, doorbells, confirms, depths, dead letters."""
