"""The alerts and the dashboard: sound by themselves, and in a real Prometheus that watches real processes."""

import json
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from core.metrics import REGISTRY
from db.embedded import free_port
from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.core.test_tracing import start_over_http
from tests.cycles import SMALL_STEPS, becomes, job_of, slow_batches
from tests.deploy.prometheus import DEPLOY, Prometheus, needs_prometheus
from tests.support import ROOT, Api, Worker, eventually, make_society

GROUPS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
ALERTS = [alert for group in GROUPS for alert in group["rules"]]
NAMES = [alert["alert"] for alert in ALERTS]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/guthi.json").read_text())
PROMETHEUS_OWN = {"up", "ALERTS"}


def queries() -> Iterator[str]:
    """Of the dashboard's panels, as Grafana would send them."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m")


def metrics_in(query: str) -> set[str]:
    bare = re.sub(r'"[^"]*"|\b(by|on|without) \([^)]*\)|\{[^}]*\}|\[[^]]*\]', "", query)
    return {word for word in re.findall(r"[a-zA-Z_][\w:]*", bare) if "_" in word or word in PROMETHEUS_OWN} - {
        "histogram_quantile"
    }


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_what_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower() and anchor in [heading.lower() for heading in headings]


def test_the_guide_has_no_section_for_an_alert_that_is_gone() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    assert re.findall(r"^### (Guthi\w+)$", guide, re.MULTILINE) == NAMES


def test_alerts_dashboard_and_guide_name_metrics_that_exist() -> None:
    there = {name for metric in REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    there |= {f"{metric.name}_bucket" for metric in REGISTRY.collect() if metric.type == "histogram"} | PROMETHEUS_OWN
    asked = {name for query in (*queries(), *(alert["expr"] for alert in ALERTS)) for name in metrics_in(query)}
    table = (ROOT / "docs/operations.md").read_text().partition("| metric |")[2].partition("\n\n")[0]
    asked |= set(re.findall(r"guthi_[a-z_]+", table))
    assert len(asked) > 20 and asked <= there, asked - there


def test_every_panel_asks_the_provisioned_source() -> None:
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)


@needs_prometheus
def test_promtool_finds_configuration_and_rules_sound(tmp_path: Path) -> None:
    for arguments in (
        ("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ):
        done = subprocess.run(["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    cases: list[dict[str, Any]] = []
    for test in yaml.safe_load((DEPLOY / "prometheus/alerts_test.yml").read_text())["tests"]:
        cases += test.get("promql_expr_test", ())
    for name in NAMES:
        assert [case for case in cases if name in str(case) and case.get("exp_samples")], f"{name} never fires"
        assert [case for case in cases if asks_for(name, case["expr"]) and not case.get("exp_samples")], name


def asks_for(name: str, query: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in re.findall(r'alertname=~?"([^"]+)"', query))


@needs_prometheus
@pytest.mark.timeout(300)  # a dead worker shows only after a while
async def test_a_real_prometheus_sees_all_of_it_and_fires(
    engine: Engine,
    owner: asyncpg.Connection,
    start_api: Callable[..., Awaitable[Api]],
    start_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    ill = await make_society(owner, members=300, prefix="ILL")
    well = await make_society(owner, members=6_000, prefix="WELL")
    for name in ("reconcile", "check_sequences", "make_partitions"):
        assert await run_maintenance(engine, name) is not None
    api, port = await start_api(), free_port()
    worker = start_worker(**SMALL_STEPS, GUTHI_WORKER_METRICS_PORT=port, GUTHI_FAULTS="in_batch=error@1")
    failed = await start_over_http(api, ill)
    await becomes(owner, failed, "Failed")  # before Prometheus has ever looked

    targets = {"api": [f"127.0.0.1:{api.port}"], "worker": [f"127.0.0.1:{port}"]}
    async with Prometheus(tmp_path, targets) as prometheus:
        await eventually(lambda: prometheus.ask("count(up == 1) == 2 and count(guthi_jobs) > 0"))
        await slow_batches(owner, 0.05)
        cycle_id = await start_over_http(api, well)
        await becomes(owner, cycle_id, "Active")
        bare = set(queries())
        async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {well.api_key}"}) as client:

            async def still_without_data() -> list[str]:
                await client.get("/api/tiers")
                bare.difference_update([query for query in bare if await prometheus.ask(query)])
                return list(bare)

            await eventually(still_without_data, lambda left: not left)
            await eventually(prometheus.firing, lambda names: names == {"GuthiCycleFailed", "GuthiJobFailed"})
            rows = await prometheus.ask('sum(guthi_rows_total{kind="create_contributions"})')
            assert float(rows[0]["value"][1]) == 6_000

            job_id = (await job_of(owner, failed))["job_id"]
            assert (
                await client.post(f"/api/jobs/{job_id}/retry", headers={"Authorization": f"Bearer {ill.api_key}"})
            ).is_success
        await becomes(owner, failed, "Active")
        await eventually(prometheus.firing, lambda names: names == {"GuthiJobFailed"})  # it tells of what happened

        worker.send(signal.SIGKILL)
        dead = {"GuthiNoSweep", "GuthiTargetDown"}
        await eventually(prometheus.firing, lambda names: names == dead | {"GuthiJobFailed"} or names == dead)
        start_worker(**SMALL_STEPS, GUTHI_WORKER_METRICS_PORT=port)
        await eventually(prometheus.firing, lambda names: not names & dead)
