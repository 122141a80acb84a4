"""Which coding of an archive is live: an alias where Milvus has aliases, else a note in the ledger.

Which of the two is written in the archive's record when it is made: what a server can do, or lets
its user do, may change, and the other kind would point to nothing.

A second mark names the coding that a switch is about to make live. A write is acknowledged only
where it has reached both, so that a case that was acknowledged before the switch began to look for
missing cases is among those that it sees, and one that is acknowledged later is in both.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dafh.deadline import Deadline
from dafh.errors import NotFound
from dafh.index.capabilities import capabilities
from dafh.index.case import Coding, CodingKey
from dafh.index.collection import archive_prefix, collection_name
from dafh.index.connection import Connection
from dafh.index.ledger import Ledger, Note, changed
from dafh.index.record import PointerKind, Strict, parsed, subject

_READING = "asking which coding is live"
_MOVING = "moving the pointer to the live coding"

#: Kind of note.
POINTER = "pointer"

#: What names no coding.
NONE = CodingKey("")


class Marks(NamedTuple):
    """Where the pointer stands; `NONE` where nothing was marked."""

    #: Queries are answered from it.
    live: CodingKey = NONE
    #: A switch is about to make it live, or died on the way.
    next: CodingKey = NONE


class Pointer(Protocol):
    """The marks of one archive."""

    def read(self, deadline: Deadline) -> Marks:
        """Return where the pointer stands, every move seen."""
        ...

    def move(
        self,
        live: Coding | None,
        to: Coding | None,
        deadline: Deadline,
        *,
        since: Marks | None = None,
    ) -> None:
        """Mark codings; each mark changes at once, `to` before `live` if it is set.

        Parameters
        ----------
        live, to
            `Marks.live` and `Marks.next`; ``None`` marks nothing.
        since
            Where the caller left the pointer.

        Raises
        ------
        Outdated
            Somebody else moved it meanwhile. A note tells for sure; an alias, unless that happens
            between the last look and the move.
        """
        ...


def kind_of(connection: Connection, deadline: Deadline) -> PointerKind:
    """Return how the pointers of new archives are kept: as the server can."""
    able = capabilities(connection, deadline).aliases
    return PointerKind.ALIAS if able else PointerKind.NOTE


def pointer(
    connection: Connection,
    ledger: Ledger,
    tenant: str,
    archive: str,
    kind: PointerKind,
    deadline: Deadline,
) -> Pointer:
    """Return the pointer of an archive, kept as its record says."""
    if (kind or kind_of(connection, deadline)) is PointerKind.ALIAS:
        return AliasPointer(connection, tenant, archive)
    return NotePointer(ledger, tenant, archive)


class AliasPointer:
    """Marks are aliases of the codings' collections."""

    def __init__(self, connection: Connection, tenant: str, archive: str) -> None:
        self._connection = connection
        self._prefix = archive_prefix(tenant, archive)

    def read(self, deadline: Deadline) -> Marks:
        """Return where the pointer stands."""
        return Marks(*(self._marked(name, deadline) for name in Marks._fields))

    def move(
        self,
        live: Coding | None,
        to: Coding | None,
        deadline: Deadline,
        *,
        since: Marks | None = None,
    ) -> None:
        """Mark codings."""
        if since is not None and self.read(deadline) != since:
            raise changed()
        # A mark that is taken away comes last: in between more is demanded of a write, never less.
        wanted = {"next": to, "live": live}
        for name in sorted(wanted, key=lambda name: wanted[name] is None):
            self._mark(name, wanted[name], deadline)

    def _mark(self, name: str, coding: Coding | None, deadline: Deadline) -> None:
        marked, alias = self._marked(name, deadline), self._prefix + name
        if coding is None:
            if marked:
                self._connection.call(_MOVING, deadline, "drop_alias", alias)
        elif marked != coding.key:
            how = "alter_alias" if marked else "create_alias"
            self._connection.call(_MOVING, deadline, how, collection_name(coding), alias)

    def _marked(self, name: str, deadline: Deadline) -> CodingKey:
        try:
            facts = self._connection.call(_READING, deadline, "describe_alias", self._prefix + name)
        except NotFound:
            return NONE
        return CodingKey(facts["collection_name"].rpartition("_")[2])


class _Document(Strict):
    live: str = ""
    next: str = ""


class NotePointer:
    """Marks are a document of the ledger."""

    def __init__(self, ledger: Ledger, tenant: str, archive: str) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._subject = subject(POINTER, tenant, archive)

    def read(self, deadline: Deadline) -> Marks:
        """Return where the pointer stands."""
        return self._read(deadline)[0]

    def move(
        self,
        live: Coding | None,
        to: Coding | None,
        deadline: Deadline,
        *,
        since: Marks | None = None,
    ) -> None:
        """Mark codings."""
        marks, revision = self._read(deadline)
        if since not in (None, marks):
            raise changed()
        wanted = Marks(live.key if live else NONE, to.key if to else NONE)
        if wanted == marks:
            return
        document = _Document(**wanted._asdict()).model_dump_json()
        self._ledger.write(Note(self._subject, self._tenant, document, revision + 1), deadline)

    def _read(self, deadline: Deadline) -> tuple[Marks, int]:
        note = self._ledger.read(self._subject, deadline)
        if note is None:
            return Marks(), 0
        document = parsed(_Document, note.document)
        return Marks(CodingKey(document.live), CodingKey(document.next)), note.revision
