"""A gRPC channel whose blocking calls end as soon as nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from dafh.calls import Stopping, only_answer


class GivenUpWithCaller(grpc.Channel):
    """Another channel, whose unary calls can be cancelled while they block.

    Parameters
    ----------
    channel
        The other channel, with the option `dafh.calls.WITHOUT_THREADS`.
    stopping
        Entered for each call, with its `cancel`.
    """

    def __init__(self, channel: grpc.Channel, stopping: Stopping) -> None:
        self._channel, self._stopping = channel, stopping

    def unary_unary(self, *arguments: Any, **named: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:  # noqa: ANN401 - gRPC's own
        """Make a method of unary calls."""
        return _UnaryUnary(
            self._channel.unary_unary(*arguments, **named),
            self._channel.unary_stream(*arguments, **named),
            self._stopping,
        )

    def unary_stream(
        self,
        *arguments: Any,  # noqa: ANN401 - gRPC's own
        **named: Any,  # noqa: ANN401 - as well
    ) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        """Make a method as the other channel does."""
        return self._channel.unary_stream(*arguments, **named)

    def stream_unary(
        self,
        *arguments: Any,  # noqa: ANN401 - gRPC's own
        **named: Any,  # noqa: ANN401 - as well
    ) -> grpc.StreamUnaryMultiCallable[Any, Any]:
        """Make a method as the other channel does."""
        return self._channel.stream_unary(*arguments, **named)

    def stream_stream(
        self,
        *arguments: Any,  # noqa: ANN401 - gRPC's own
        **named: Any,  # noqa: ANN401 - as well
    ) -> grpc.StreamStreamMultiCallable[Any, Any]:
        """Make a method as the other channel does."""
        return self._channel.stream_stream(*arguments, **named)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = None,
    ) -> None:
        """Have `callback` told of the connection."""
        self._channel.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell `callback` no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the other channel."""
        self._channel.close()

    def __enter__(self) -> GivenUpWithCaller:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class _UnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]  # generic in the stubs alone
    def __init__(
        self,
        method: grpc.UnaryUnaryMultiCallable[Any, Any],
        waited_for: grpc.UnaryStreamMultiCallable[Any, Any],
        stopping: Stopping,
    ) -> None:
        self._method, self._waited_for, self._stopping = method, waited_for, stopping

    def __call__(self, request: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - gRPC's own
        return self.with_call(request, *arguments, **named)[0]

    def with_call(self, request: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - gRPC's own
        call = self._waited_for(request, *arguments, **named)
        return only_answer(call, self._stopping), call

    def future(self, request: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - gRPC's own
        return self._method.future(request, *arguments, **named)
