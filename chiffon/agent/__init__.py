"""The Celery runtime of an agent, and all of Celery's oddities."""
