"""Run the gateway: ``python -m dafh_gateway``, configured by ``DAFH_…`` environment variables.

With DAFH_PROCESSES it starts so many of itself, ``--sibling``, which share the port.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys

from dafh.errors import DafhError
from dafh.settings import load
from dafh.telemetry.logs import configure_logs
from dafh_gateway.server import Gateway
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.siblings import serve_with_siblings

#: Says that another process has started this one, to share its port.
SIBLING = "--sibling"
#: Seconds after which a thread that computes gives way to one that has got an answer. Python's own
#: 5 ms are as long as whole stages of a query, and each query changes threads a dozen times.
GIVE_WAY_S = 0.0005


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = load(GatewaySettings)
        configure_logs(settings.log_level)
        if settings.processes > 1 and SIBLING not in sys.argv[1:]:
            return serve_with_siblings(settings)
        sys.setswitchinterval(GIVE_WAY_S)
        gateway = Gateway(settings)
        # What is there now stays, and is not looked through again: that took 80 ms at a time.
        gc.collect()
        gc.freeze()
    except DafhError as error:
        sys.stderr.write(f"dafh-gateway: {error}\n")
        return 2
    logging.getLogger(__name__).info("serving", extra={"listen": settings.listen})
    # Blocked here and not handled: a handler could run in the middle of anything.
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    gateway.stop()
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main())
