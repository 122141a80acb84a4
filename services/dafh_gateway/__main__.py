"""Run the gateway: ``python -m dafh_gateway``, configured by ``DAFH_…`` environment variables.

With DAFH_PROCESSES it starts so many of itself, ``--sibling``, which share the port.
"""

from __future__ import annotations

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


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = load(GatewaySettings)
        configure_logs(settings.log_level)
        if settings.processes > 1 and SIBLING not in sys.argv[1:]:
            return serve_with_siblings(settings)
        gateway = Gateway(settings)
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
