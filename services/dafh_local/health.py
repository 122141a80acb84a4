"""Asks a server of the stack whether it answers, over loopback and never through a proxy."""

from __future__ import annotations

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from dafh.errors import Reason, Unavailable

OPTIONS = (("grpc.enable_http_proxy", 0),)
HEALTH = "/grpc.health.v1.Health/Check"
#: A cheap read of Milvus, for which an empty message is a valid request.
MILVUS_LIST = "/milvus.proto.milvus.MilvusService/ShowCollections"


def is_serving(address: str, service: str, seconds: float) -> bool:
    """Ask by the gRPC health protocol (Triton and the gateway speak it).

    Returns
    -------
    bool
        Whether the service is served; a server may answer that it cannot serve now.

    Raises
    ------
    Unavailable
        The server does not answer within `seconds`.
    """
    with grpc.insecure_channel(address, OPTIONS) as channel:
        check = channel.unary_unary(
            HEALTH, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        try:
            answer = check(HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError as error:
            raise _silent(Reason.GATEWAY_UNAVAILABLE, address, error) from None
    return answer.status == HealthCheckResponse.SERVING


def milvus_answers(address: str, seconds: float) -> bool:
    """Ask Milvus for its collections; it has no health protocol.

    Raises
    ------
    Unavailable
        The server does not answer within `seconds`.
    """
    with grpc.insecure_channel(address, OPTIONS) as channel:
        try:
            show = channel.unary_unary(MILVUS_LIST, Empty.SerializeToString, Empty.FromString)
            show(Empty(), timeout=seconds)
        except grpc.RpcError as error:
            raise _silent(Reason.INDEX_UNAVAILABLE, address, error) from None
    return True


def _silent(reason: Reason, address: str, error: grpc.RpcError) -> Unavailable:
    return Unavailable(reason, f"{address} does not answer ({error.code().name}).")
