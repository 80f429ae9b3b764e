# The application alone: the API, the worker and the command. PostgreSQL and Valkey run elsewhere.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
RUN useradd --system --uid 10001 --no-create-home guthi
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock

COPY pyproject.toml LICENSE ./
COPY sql sql
COPY core core
COPY db db
COPY domain domain
COPY jobs jobs
COPY worker worker
COPY api api
COPY cli cli

USER guthi
EXPOSE 8000
# `docker run IMAGE worker` runs a worker, `docker run IMAGE doctor` the checks.
ENTRYPOINT ["python", "-m", "cli.main"]
CMD ["api", "--host", "0.0.0.0"]
