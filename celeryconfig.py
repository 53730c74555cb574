"""Celery's settings for the agents, for you to change. Those that the guarantees need are set by Chiffon itself."""

worker_prefetch_multiplier = 1  # a message already fetched cannot be overtaken by an urgent one
worker_send_task_events = True  # Flower shows what happens
task_send_sent_event = True  # ... and what waits
worker_proc_alive_timeout = 30.0  # a loaded machine forks slowly
worker_max_tasks_per_child = 10_000  # whatever leaks, leaks no further
result_extended = True  # names and arguments beside each result
worker_enable_remote_control = True  # `celery inspect`, Flower
