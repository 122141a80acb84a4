"""Traces (OpenTelemetry): a span a call and a span a stage; exported where an endpoint is set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import NoOpTracerProvider, Span, SpanKind


class Traces:
    """Makes spans.

    Parameters
    ----------
    service
        Whose spans they are.
    exporter
        Where they go; without one none are made.
    """

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        self._provider: TracerProvider | None = None
        provider: trace.TracerProvider = NoOpTracerProvider()
        if exporter is not None:
            provider = self._provider = TracerProvider(
                resource=Resource.create({SERVICE_NAME: service})
            )
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = provider.get_tracer(service)

    @contextmanager
    def call(self, name: str, metadata: Mapping[str, str]) -> Iterator[Span]:
        """Make the span of a call, as part of the caller's trace where it sends one (W3C)."""
        context = propagate.extract(metadata)
        with self._tracer.start_as_current_span(
            name, context, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    @contextmanager
    def stage(self, name: str) -> Iterator[Span]:
        """Make the span of a stage."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that makes the next server's spans part of this trace."""
        if self._provider is None:
            return ()
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return tuple(carrier.items())

    def close(self) -> None:
        """Send what was not sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


def otlp(endpoint: str) -> SpanExporter:
    """Return an exporter to a collector: ``http://host:port`` or ``https://host:port`` (gRPC)."""
    # Not everybody who serves sends traces.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
