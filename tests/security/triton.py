"""A real Triton that lets nobody in without a certificate of its own CA."""

from __future__ import annotations

from pathlib import Path

import trustme

from dafh.deadline import Deadline
from dafh.encoding.triton import TritonServer
from dafh.security.settings import TritonTlsSettings
from tests.chaos.triton import Triton

#: Name in its certificate; its address is one of this machine.
NAME = "triton.example"


class TlsTriton(Triton):
    """A Triton process that demands mutual TLS.

    Parameters
    ----------
    folder
        For its repository, certificates and log.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")

    def start(self) -> None:
        """Start; return when it serves those who have a certificate."""
        server = self._issued(self.ca, NAME)
        self.spawn(
            "--grpc-use-ssl=1", f"--grpc-server-cert={server['certificate']}",
            f"--grpc-server-key={server['key']}", f"--grpc-root-cert={self.folder / 'ca.pem'}",
            "--grpc-use-ssl-mutual=1",
        )  # fmt: skip
        settings = TritonTlsSettings(**self.settings("test"))  # type: ignore[arg-type]  # its fields
        client = TritonServer(
            self.address, settings.triton_credentials(self.address), server_name=NAME
        )
        try:
            self.await_(lambda: client.ready(1, Deadline.after(5)))
        finally:
            client.close()

    def settings(self, who: str, ca: trustme.CA | None = None) -> dict[str, str]:
        """Return the settings of whoever knows its CA; by default with a certificate of it."""
        ours = self._issued(ca or self.ca, f"{who}.example")
        return {
            "triton_address": self.address,
            "triton_ca": str(self.folder / "ca.pem"),
            "triton_certificate": ours["certificate"],
            "triton_key": ours["key"],
            "triton_server_name": NAME,
        }

    def _issued(self, ca: trustme.CA, name: str) -> dict[str, str]:
        leaf = ca.issue_cert(name)
        contents = {
            "key": leaf.private_key_pem.bytes(),
            "certificate": leaf.cert_chain_pems[0].bytes(),
        }
        paths = {}
        for kind, content in contents.items():
            path = self.folder / f"{name}-{kind}.pem"
            path.write_bytes(content)
            path.chmod(0o600)
            paths[kind] = str(path)
        return paths
