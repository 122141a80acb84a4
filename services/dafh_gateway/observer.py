"""What is seen of each call: a span, a line in the log, metrics, and a record in the audit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from dafh.errors import DafhError
from dafh.telemetry.audit import Audit, Event
from dafh.telemetry.logs import REQUEST_ID
from dafh.telemetry.metrics import Metrics
from dafh.telemetry.traces import Traces
from dafh_gateway.admission import Memory, Stage
from dafh_gateway.call import Call
from dafh_gateway.statuses import CODES

OK = grpc.StatusCode.OK.name
#: Of a call whose client went away before it was answered.
GONE = grpc.StatusCode.CANCELLED.name

_log = logging.getLogger("dafh_gateway.calls")


class Observer:
    """Tells of calls.

    Parameters
    ----------
    metrics, traces
        What operators look at.
    audit
        What auditors look at; ``None`` where nothing is written down.
    """

    def __init__(self, metrics: Metrics, traces: Traces, audit: Audit | None) -> None:
        self.metrics = metrics
        self.traces = traces
        self._audit = audit

    @contextmanager
    def call(self, call: Call, metadata: Mapping[str, str]) -> Iterator[None]:
        """Surround a call with its span and its id."""
        token = REQUEST_ID.set(call.request_id)
        try:
            with self.traces.call(call.method, metadata) as span:
                yield
                span.set_attribute("dafh.request_id", call.request_id)
        finally:
            REQUEST_ID.reset(token)

    def ended(self, call: Call, began: float, error: DafhError | None, *, gone: bool) -> None:
        """Tell how a call ended.

        Raises
        ------
        OSError
            The audit cannot be written.
        """
        seconds = time.monotonic() - began
        code = CODES[type(error)].code.name if error else OK
        reason = str(error.reason) if error else ""
        if gone:
            code, reason = GONE, ""
        self.metrics.requests.labels(call.name, code, reason).inc()
        self.metrics.seconds.labels(call.name).observe(seconds)
        for stage, spent in call.stages.items():
            self.metrics.stages.labels(stage).observe(spent)
        facts = {
            "method": call.name,
            "code": code,
            "reason": reason,
            "tenant": call.identity.tenant,
            "archive": call.archive,
            "ms": round(1000 * seconds, 1),
            "stages": {name: round(1000 * spent, 1) for name, spent in call.stages.items()},
        }
        _log.info("call", extra=facts)
        if self._audit is not None:
            self._audit.record(
                Event(
                    subject=call.identity.subject,
                    tenant=call.identity.tenant,
                    method=call.name,
                    archive=call.archive,
                    count=call.count if code == OK else 0,
                    code=code,
                    reason=reason,
                    request_id=call.request_id,
                )
            )

    def watch(self, stages: tuple[Stage, ...], memory: Memory) -> None:
        """Show how full the stages and the memory are."""
        for stage in stages:
            self.metrics.watch(
                "dafh_stage_waiting",
                "Calls in line for a stage.",
                lambda stage=stage: stage.waiting,  # type: ignore[misc]  # mypy cannot infer such a lambda
                stage=stage.name,
            )
            self.metrics.watch(
                "dafh_stage_busy",
                "Places of a stage that are taken.",
                lambda stage=stage: stage.busy,  # type: ignore[misc]  # as above
                stage=stage.name,
            )
        self.metrics.watch("dafh_memory_bytes", "What messages in hand take.", lambda: memory.taken)
        self.metrics.watch("dafh_memory_budget_bytes", "What they may take.", lambda: memory.size)

    def close(self) -> None:
        """Send and write what is left."""
        self.traces.close()
        if self._audit is not None:
            self._audit.close()
