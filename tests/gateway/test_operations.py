"""What an operator sees of a gateway: probes, metrics, traces, logs, the audit, and its end."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from dafh.client import Client, question
from dafh.errors import DafhError, Reason
from dafh.imaging.phantom import phantoms
from dafh.settings import CHECKOUT
from dafh.stack import Stack
from dafh.telemetry.audit import verify
from dafh.telemetry.logs import JsonFormatter
from dafh.v1 import model_service_pb2
from dafh_gateway import server
from dafh_gateway.server import SERVICES, Gateway
from tests.gateway.conftest import beside
from tests.gateway.filled import fill
from tests.imaging.canaries import Canaries, planted

pytestmark = pytest.mark.stack
IMAGE = next(iter(phantoms(1, 92))).data


@pytest.fixture
def gateway(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(server, "otlp", lambda _endpoint: exporter)
    settings = beside(
        stack, http_listen="127.0.0.1:0", audit_dir=tmp_path / "audit", otlp_endpoint="http://x:1"
    )
    running = Gateway(settings)
    EXPORTED[running] = exporter
    yield running
    running.stop()
    del EXPORTED[running]


EXPORTED: dict[Gateway, InMemorySpanExporter] = {}


def spans_of(gateway: Gateway) -> tuple[ReadableSpan, ...]:
    gateway.observer.traces._provider.force_flush()  # type: ignore[union-attr]  # there is one
    return EXPORTED[gateway].get_finished_spans()


@pytest.fixture
def asking(gateway: Gateway) -> Iterator[Client]:
    with Client(f"127.0.0.1:{gateway.port}", timeout=60) as opened:
        yield opened


def get(gateway: Gateway, path: str) -> tuple[int, str]:
    assert gateway.http is not None
    connection = HTTPConnection("127.0.0.1", gateway.http.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.getheader("Server") == "dafh"
    return answer.status, answer.read().decode()


def await_ready(gateway: Gateway) -> None:
    end = time.monotonic() + 10
    while gateway.down():
        assert time.monotonic() < end, gateway.down()
        time.sleep(0.02)


def samples(gateway: Gateway) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(get(gateway, "/metrics")[1])
        for sample in family.samples
    }


def test_probes_say_alive_and_ready(gateway: Gateway) -> None:
    assert get(gateway, "/livez")[0] == 200
    await_ready(gateway)
    assert get(gateway, "/readyz") == (200, '{"status": "OK", "down": []}\n')
    assert get(gateway, "/etc/passwd")[0] == 404
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", *SERVICES):
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_is_away_is_named(stack: Stack) -> None:
    lonely = Gateway(
        beside(stack, http_listen="127.0.0.1:0", triton_address="127.0.0.1:1", audit=False)
    )
    try:
        time.sleep(1.5)
        status, body = get(lonely, "/readyz")
        assert status == 503
        assert json.loads(body)["down"] == ["triton"]
        assert get(lonely, "/livez")[0] == 200
    finally:
        lonely.stop()


def test_calls_show_in_the_metrics(gateway: Gateway, asking: Client) -> None:
    fill(asking, "default", 3)
    asking.retrieve(dicom=IMAGE, include_same_patient=True)
    with pytest.raises(DafhError):
        asking.encode(dicom=b"nonsense")
    found = samples(gateway)
    ok = "[('code', 'OK'), ('method', 'Retrieve'), ('reason', '')]"
    assert found[f"dafh_requests_total{ok}"] == 1
    refused = "[('code', 'INVALID_ARGUMENT'), ('method', 'Encode'), ('reason', 'NOT_AN_IMAGE')]"
    assert found[f"dafh_requests_total{refused}"] == 1
    for stage in ("decoding", "inference", "searching"):
        assert found[f"dafh_stage_seconds_count[('stage', '{stage}')]"] >= 1
    assert sum(value for name, value in found.items() if "dafh_query_images_total" in name) == 1
    assert found["dafh_nearest_distance_count[]"] == 1
    stored = sum(value for name, value in found.items() if "dafh_indexed_cases_total" in name)
    assert stored == 3


def test_a_call_is_one_trace_from_the_caller_to_each_stage(
    gateway: Gateway, asking: Client, stack: Stack
) -> None:
    fill(asking, "default", 1)
    spans_of(gateway)
    EXPORTED[gateway].clear()
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    asking.retrieval.Retrieve(
        question({}, dicom=IMAGE), timeout=30,
        metadata=(("traceparent", f"00-{trace}-{parent}-01"),),
    )  # fmt: skip
    spans = {span.name: span for span in spans_of(gateway)}
    assert set(spans) == {
        "dafh.v1.RetrievalService.Retrieve", "decoding", "inference", "searching"
    }  # fmt: skip
    call = spans.pop("dafh.v1.RetrievalService.Retrieve")
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == parent
    for span in spans.values():
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == trace
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id


def test_log_lines_are_json_with_the_callers_id(
    asking: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dafh_gateway")
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logger = logging.getLogger("dafh_gateway")
    handler = Keep()
    logger.addHandler(handler)
    try:
        given = "0123456789abcdef0123"
        for request_id in (given, "PHANTOM^NAME of a patient"):
            asking.models.ListModels(
                _list_models(), timeout=30, metadata=(("x-request-id", request_id),)
            )
    finally:
        logger.removeHandler(handler)
    calls = [line for line in lines if line["message"] == "call"]
    assert calls[0]["request_id"] == given
    assert len(calls[1]["request_id"]) == 32
    assert calls[0]["method"] == "ListModels"
    assert not any("PHANTOM" in json.dumps(line) for line in lines)


def _list_models() -> Any:  # noqa: ANN401 - a message
    return model_service_pb2.ListModelsRequest()


def test_calls_are_written_down(gateway: Gateway, asking: Client, tmp_path: Path) -> None:
    fill(asking, "default", 2)
    asking.retrieve(dicom=IMAGE, top_k=2, include_same_patient=True)
    with pytest.raises(DafhError):
        asking.get_archive("archives/never-made")
    (file,) = (tmp_path / "audit").iterdir()
    lines = file.read_text().splitlines()
    (verdict,) = verify(lines)
    assert not verdict.fault
    calls = [record for record in map(json.loads, lines) if record["kind"] == "call"]
    assert [(one["method"], one["archive"], one["count"], one["code"]) for one in calls] == [
        ("IndexCases", "default", 2, "OK"),
        ("Retrieve", "default", 2, "OK"),
        ("GetArchive", "never-made", 0, "NOT_FOUND"),
    ]
    assert {one["subject"] for one in calls} == {"anybody"}


def test_what_cannot_be_written_down_does_not_work(
    gateway: Gateway, asking: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    audit = gateway.observer._audit
    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", full)
        with pytest.raises(DafhError) as caught:
            asking.list_models()
        assert caught.value.reason is Reason.INTERNAL
    assert asking.list_models()


def test_planted_names_are_in_nothing_that_an_operator_sees(
    gateway: Gateway, asking: Client, tmp_path: Path
) -> None:
    whole = planted(Canaries())
    for data in (whole, whole[:99_999], whole[:300] + b"CNRY^X"):
        for call in (asking.retrieve, asking.encode):
            with contextlib.suppress(DafhError):
                call(dicom=data)
    (file,) = (tmp_path / "audit").iterdir()
    spans = " ".join(span.to_json() for span in spans_of(gateway))
    for seen in (get(gateway, "/metrics")[1], file.read_text(), spans):
        assert seen
        assert not Canaries.sings(seen)


def test_it_finishes_what_is_in_hand_and_takes_no_more(stack: Stack) -> None:
    draining = Gateway(beside(stack, http_listen="127.0.0.1:0", drain_seconds=0.5, audit=False))
    await_ready(draining)
    with Client(f"127.0.0.1:{draining.port}", timeout=30) as client, ThreadPoolExecutor(4) as pool:
        files = [one.data for one in phantoms(24, 91)]
        answers = [pool.submit(client.encode, dicom=data) for data in files]
        stopping = threading.Thread(target=draining.stop)
        stopping.start()
        time.sleep(0.1)
        assert get(draining, "/readyz")[0] == 503
        stopping.join()
        outcomes = [_outcome(answer) for answer in answers]
        assert outcomes.count("answered") > 0
        assert set(outcomes) <= {"answered", Reason.GATEWAY_UNAVAILABLE}


def _outcome(answer: Any) -> object:  # noqa: ANN401 - a future
    try:
        return "answered" if answer.result(30).hashes else "empty"
    except DafhError as error:
        return error.reason


MONITORING = CHECKOUT / "k8s" / "monitoring"


def test_dashboard_and_alerts_ask_for_metrics_that_exist(gateway: Gateway, asking: Client) -> None:
    fill(asking, "default", 1)
    asking.retrieve(dicom=IMAGE)
    existing = {name.partition("[")[0] for name in samples(gateway)}
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((MONITORING / "dashboard.json").read_text())
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 12
    for expression in asked:
        names = set(re.findall(r"\bdafh_\w+", expression))
        assert names, expression
        assert names <= existing, expression


def test_alerts_say_what_to_do() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert set(rule["annotations"]) == {"summary", "action"}
