"""Is there a cluster at an address, and does it take our token? Asked before Ray's own client, which tries for minutes
and says neither."""

from __future__ import annotations

import os
import re
import socket

from ray.exceptions import AuthenticationError

from pipeline.errors import InputError

REACH_S = 15.0  # how long a cluster may take to answer at all
TOKEN = "RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN, in a file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray"
BY_NAME = ("auto", "local")  # of RAY_ADDRESS: Ray looks for a cluster on this machine, or starts one


def require_cluster(address: str) -> None:
    """Raise InputError unless a cluster answers at this RAY_ADDRESS and takes the token that is set here."""
    if address in BY_NAME or address.startswith("ray://"):
        return
    mend = "set RAY_ADDRESS to where its head is, HOST:6379 unless started otherwise, or submit a job to its dashboard"
    if not (found := re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/:]+):(\d{1,5})", address)):
        raise InputError(f"RAY_ADDRESS={address} is no address of a Ray cluster: {mend} (instructmill submit)")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster at RAY_ADDRESS={address} ({error}): is it up? {mend} (instructmill submit)"
        ) from None
    _require_token(address)


def refused(where: str, why: str) -> InputError:
    """What is wrong with the token, by Ray's words for it. They are long, and name no address."""
    if "cannot be opened" in why:
        return InputError(f"RAY_AUTH_TOKEN_PATH={os.environ.get('RAY_AUTH_TOKEN_PATH')}: cannot be read, or is empty")
    if "Invalid" in why and os.environ.get("RAY_AUTH_MODE") == "token":
        return InputError(f"{where} refuses this token; set {TOKEN}/auth_token, as the cluster has it")
    return InputError(f"{where} asks for a token, and none was sent; set {TOKEN}/auth_token")


def _require_token(address: str) -> None:
    """Ask a small thing of the head. Ray keeps the way for itself: where it moves, a wrong token is told of later."""
    try:
        import grpc  # type: ignore[import-untyped]
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
        from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    except ImportError:
        return
    where = f"the Ray cluster at RAY_ADDRESS={address}"
    try:
        channel = init_grpc_channel(address)
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=REACH_S)
        finally:
            channel.close()
    except AuthenticationError as error:
        raise refused(where, str(error)) from None
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise refused(where, str(error.details())) from None
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise InputError(
                f"what answers at RAY_ADDRESS={address} is no Ray cluster, or one of another network than it says "
                f"({str(error.details())[:200]}); the head's own address is HOST:6379 unless started otherwise"
            ) from None
    except (AttributeError, TypeError):
        return
