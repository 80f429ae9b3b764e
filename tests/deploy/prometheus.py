"""A real Prometheus on a free port, with the configuration of `deploy/` at a pace that a test can wait for."""

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from db.embedded import free_port
from tests.support import ROOT, eventually

DEPLOY = ROOT / "deploy"
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are missing: run scripts/ci-packages as root, or apt-get install prometheus",
)
FASTER = {r"\[1m\]": "[10s]", r"\bfor: \w+": "for: 1s", r"keep_firing_for: \w+": "keep_firing_for: 1s"}


class Prometheus:
    """Use it as a context. `targets` are addresses by the name of their scrape job."""

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]]) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
        rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
        for slow, fast in FASTER.items():
            rules = re.sub(slow, fast, rules)
        (directory / "alerts.yml").write_text(rules)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._directory, self._port = directory, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> "Prometheus":
        self._process = self._start()
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}")

        async def ready() -> bool:
            assert self._process is not None and self._process.poll() is None, (self._directory / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                return (await self._client.get("/-/ready")).is_success
            return False

        try:
            await eventually(ready)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    def _start(self) -> subprocess.Popen[bytes]:
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with (self._directory / "log").open("w") as log:
            return subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{self._port}"], cwd=self._directory, stdout=log, stderr=log
            )

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await self._client.aclose()

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query gives now, without those whose value is not a number."""
        answer = (await self._client.get("/api/v1/query", params={"query": query})).json()
        assert answer["status"] == "success", (query, answer)
        return [series for series in answer["data"]["result"] if series["value"][1] != "NaN"]

    async def firing(self) -> set[str]:
        return {series["metric"]["alertname"] for series in await self.ask('ALERTS{alertstate="firing"}')}
