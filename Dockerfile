# syntax=docker/dockerfile:1
# The API and the agents, one image; docker-compose.yml says which command each runs.
# CI has no container engine: there this file is linted and its commands run as processes, and nothing builds it.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /source
RUN python -m venv /opt/chiffon
# The dependencies first, in a layer that a change of the code leaves as it is.
COPY pyproject.toml requirements.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      >wanted.txt \
    && /opt/chiffon/bin/pip install --no-cache-dir --constraint requirements.txt --requirement wanted.txt
COPY README.md LICENSE ./
COPY chiffon chiffon
RUN /opt/chiffon/bin/pip install --no-cache-dir --no-deps .

FROM python:${PYTHON}
RUN groupadd --system --gid 999 chiffon && useradd --system --uid 999 --gid chiffon --create-home chiffon
COPY --from=build /opt/chiffon /opt/chiffon
WORKDIR /app
COPY celeryconfig.py gunicorn.conf.py wsgi.py ./
COPY workers workers
ENV PATH=/opt/chiffon/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 999:999
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["chiffon", "health", "http", "http://127.0.0.1:8000/health/live"]
CMD ["gunicorn", "--bind=0.0.0.0:8000", "--no-control-socket"]
