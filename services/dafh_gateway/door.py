"""The door: every call of every service comes in here, and leaves as a status.

In this order: who it is, whether it may, whether there is room, and only then its message is read.
gRPC hands all methods over as streams, for then a message is read when the door says so.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from dafh.deadline import CallDeadline
from dafh.errors import DafhError, DeadlineExceeded, InvalidInput, Reason
from dafh.security.identity import Authenticator, Credentials, Identity, unauthenticated
from dafh_gateway.admission import Memory, Share
from dafh_gateway.call import Call, Incoming, read_request_id, time_left
from dafh_gateway.observer import Observer
from dafh_gateway.permissions import require_permission
from dafh_gateway.settings import LoadSettings
from dafh_gateway.statuses import defect, pushback_of, status_of

#: Methods that a client keeps open.
STREAMS = frozenset({"dafh.v1.ArchiveService.IndexCases"})

#: Takes the message, or the messages where the client sends several, and the call.
Handler = Callable[[Any, Call], Any]

_log = logging.getLogger(__name__)


class Door:
    """Lets calls in.

    Parameters
    ----------
    authenticator
        Says who calls.
    settings
        How much is let in.
    observer
        Is told of every call.
    """

    def __init__(
        self, authenticator: Authenticator, settings: LoadSettings, observer: Observer
    ) -> None:
        self._authenticator = authenticator
        self._observer = observer
        self._settings = settings
        #: What messages and uploads in hand may take.
        self.memory = Memory(settings.memory_budget, settings.memory_patience)
        self._calls = Share("calls", settings.max_calls, settings.max_calls_per_tenant)
        self._streams = Share("streams", settings.max_streams, settings.max_streams_per_tenant)

    def handlers(self, descriptor: ServiceDescriptor, service: object) -> grpc.GenericRpcHandler:
        """Return what gRPC calls for a service whose methods take a request and a `Call`."""
        handlers = {
            method.name: self._handler(method, getattr(service, method.name))
            for method in descriptor.methods
        }
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(
        self, method: MethodDescriptor, handler: Handler
    ) -> grpc.RpcMethodHandler[Any, Any]:
        make = (
            grpc.stream_stream_rpc_method_handler
            if method.server_streaming
            else grpc.stream_unary_rpc_method_handler
        )

        kind = GetMessageClass(method.input_type)

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Message | None:
            with self._opened(method, context) as call:
                incoming = self._incoming(messages, kind, call)
                if method.client_streaming:
                    return self._whole(handler(incoming, call), call)
                with incoming.held() as request:
                    if request is None:
                        raise InvalidInput(Reason.ARGUMENT_INVALID, "The call has no message.")
                    return self._whole(handler(request, call), call)
            return None

        def answers(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Message]:
            with self._opened(method, context) as call:
                yield from handler(self._incoming(messages, kind, call), call)

        return make(
            answers if method.server_streaming else answer,
            # Parsed at the door: gRPC would call what is no message a fault of its own.
            request_deserializer=None,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    @contextmanager
    def _opened(self, method: MethodDescriptor, context: grpc.ServicerContext) -> Iterator[Call]:
        """Let a call in, tell how it ended, and turn what went wrong into its status."""
        metadata, began = read_metadata(context), time.monotonic()
        call = Call(method.full_name, read_request_id(metadata))
        with self._observer.call(call, metadata):
            error = yield from self._told(call, began, metadata, context)
        if error is not None:
            abort(context, error)

    def _told(
        self,
        call: Call,
        began: float,
        metadata: Mapping[str, str],
        context: grpc.ServicerContext,
    ) -> Generator[Call, None, DafhError | None]:
        """Hand a call over and tell how it ended; return what its caller is to be told."""
        error: DafhError | None = None
        gone = True
        try:
            with self._admitted(call, metadata, context):
                yield call
            gone = False
        except DafhError as refusal:
            error, gone = forgotten(refusal), not context.is_active()
        except grpc.RpcError:
            # The caller went away while its message was read.
            pass
        except Exception:  # noqa: BLE001 - the last place that can see it; its log names the place
            gone = not context.is_active()
            if not gone:
                _log.exception("a handler failed")
                error = defect()
        finally:
            # Also where the caller of a stream goes away, which ends this without a word.
            error = self._tell(call, began, error, gone=gone)
        return unheard() if gone and error is None else error

    def _tell(
        self, call: Call, began: float, error: DafhError | None, *, gone: bool
    ) -> DafhError | None:
        try:
            self._observer.ended(call, began, error, gone=gone)
        except OSError:
            # What cannot be written down must not be told to have worked.
            _log.exception("the audit failed")
            return error or defect()
        return error

    @contextmanager
    def _admitted(
        self, call: Call, metadata: Mapping[str, str], context: grpc.ServicerContext
    ) -> Iterator[None]:
        call.identity = self._identify(metadata, context)
        require_permission(call.identity, call.method)
        stream = call.method in STREAMS
        share = self._streams if stream else self._calls
        with share.one(call.tenant):
            # A stream stays open as long as its client likes; each of its images has a deadline.
            default = math.inf if stream else self._settings.default_deadline
            call.deadline = CallDeadline.after(time_left(context, default))
            if not context.add_callback(call.deadline.give_up):
                call.deadline.give_up()
            yield

    def _identify(self, metadata: Mapping[str, str], context: grpc.ServicerContext) -> Identity:
        credentials = Credentials.of(metadata, certificate_names(context))
        identity = self._authenticator.identify(credentials)
        if identity is None:
            raise unauthenticated("The call brings no credentials.")
        return identity

    def _incoming(
        self, messages: Iterator[bytes], kind: type[Message], call: Call
    ) -> Incoming[Message]:
        return Incoming(messages, kind, self.memory, self._settings.max_message, call.deadline)

    @staticmethod
    def _whole(response: Message, call: Call) -> Message:
        # What comes too late must not look as if it had come in time.
        call.deadline.remaining("the answer was sent")
        return response


def forgotten(error: DafhError) -> DafhError:
    """Return an error without the frames that it came through: they hold on to the caller's image.

    An error in a local variable and the frame of that variable hold each other until the collector
    comes by, which may be gigabytes later.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def unheard() -> DeadlineExceeded:
    """Return the error of a call that nobody waits for any more: it ends, and nobody sees how."""
    return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "The caller gave up.")


def read_metadata(context: grpc.ServicerContext) -> dict[str, str]:
    """Return the textual metadata of a call."""
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def certificate_names(context: grpc.ServicerContext) -> tuple[str, ...]:
    """Return the names in the client's certificate, which gRPC has verified; none without one."""
    facts = cast("Mapping[str, list[bytes]]", context.auth_context())
    names = [
        name
        for key in ("x509_common_name", "x509_subject_alternative_name")
        for name in facts.get(key, ())
    ]
    return tuple(name.decode(errors="replace") for name in names)


def abort(context: grpc.ServicerContext, error: DafhError) -> NoReturn:
    """End a call with an error's status."""
    status = status_of(error)
    ended = rpc_status.to_status(status)
    context.set_trailing_metadata((*ended.trailing_metadata, *pushback_of(status)))
    context.abort(ended.code, ended.details)
    raise AssertionError("abort raises")
