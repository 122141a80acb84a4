"""Who may call what."""

from __future__ import annotations

from dafh.errors import Denied, Reason
from dafh.security.identity import Identity, Role

_LOOK = frozenset({Role.READER, Role.ADMIN})
_FILL = frozenset({Role.INDEXER, Role.ADMIN})
_KNOW = frozenset(Role)
_RULE = frozenset({Role.ADMIN})

#: Full name of a method -> roles of which a caller must have one.
PERMISSIONS: dict[str, frozenset[Role]] = {
    "dafh.v1.RetrievalService.Retrieve": _LOOK,
    "dafh.v1.RetrievalService.RetrieveUpload": _LOOK,
    "dafh.v1.RetrievalService.BatchRetrieve": _LOOK,
    "dafh.v1.RetrievalService.Encode": _LOOK,
    "dafh.v1.ArchiveService.IndexCases": _FILL,
    "dafh.v1.ArchiveService.GetCase": _KNOW,
    "dafh.v1.ArchiveService.ListCases": _LOOK,
    "dafh.v1.ArchiveService.DeleteCases": _RULE,
    "dafh.v1.ArchiveService.CreateArchive": _RULE,
    "dafh.v1.ArchiveService.GetArchive": _KNOW,
    "dafh.v1.ArchiveService.ListArchives": _KNOW,
    "dafh.v1.ArchiveService.DeleteArchive": _RULE,
    "dafh.v1.ArchiveService.SwitchArchive": _RULE,
    "dafh.v1.ModelService.GetModel": _KNOW,
    "dafh.v1.ModelService.ListModels": _KNOW,
}


def require_permission(identity: Identity, method: str) -> None:
    """Refuse a caller without one of the roles that a method needs.

    Raises
    ------
    Denied
        It has none of them.
    """
    if not PERMISSIONS[method] & identity.roles:
        needed = " or ".join(sorted(PERMISSIONS[method]))
        raise Denied(
            Reason.PERMISSION_DENIED,
            f"{method.rpartition('.')[2]} needs the role {needed}.",
            remedy="Ask an administrator for it.",
        )
