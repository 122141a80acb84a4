"""The gateway as part of a stack: its command line and settings."""

from __future__ import annotations

import sys

from dafh_local.plan import Plan
from dafh_local.ports import address
from dafh_local.process import Command

#: What its health answers are asked for: the whole server, and whether it can retrieve now.
SERVICE = "dafh.v1.RetrievalService"


def command(plan: Plan) -> Command:
    """Return how to start the gateway; other ``DAFH_`` settings of the caller reach it too."""
    return Command(
        (sys.executable, "-P", "-m", "dafh_gateway"),
        {
            "DAFH_LISTEN": address(plan.ports.gateway),
            "DAFH_TRITON_ADDRESS": address(plan.ports.triton),
            "DAFH_MILVUS_URI": f"http://{address(plan.ports.milvus)}",
            "DAFH_BITS": str(plan.bits),
            "DAFH_PATIENT_KEY_FILE": str(plan.patient_key_file),
            "DAFH_MODEL_VERSION": str(plan.model_version),
            "DAFH_MODEL_REPOSITORY": str(plan.model_repository),
        },
    )
