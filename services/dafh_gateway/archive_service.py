"""`ArchiveService`: archives and the cases in them."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from dafh.codes import DEFAULT_BITS
from dafh.errors import NotFound, Reason
from dafh.index.archive import Archive
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId
from dafh.index.erasure import Cases, Patient, Selection, Study
from dafh.index.filters.parse import parse
from dafh.index.filters.tree import matches
from dafh.index.progress import FillNote
from dafh.v1 import archive_pb2, archive_service_pb2, case_pb2
from dafh_gateway import messages
from dafh_gateway.asking import Asking
from dafh_gateway.backend import Backend
from dafh_gateway.call import Call, Incoming
from dafh_gateway.indexing import IndexStream
from dafh_gateway.masks import Mask
from dafh_gateway.names import (
    ARCHIVE_ID,
    archive_name,
    case_name,
    invalid,
    parse_archive,
    parse_case,
    parse_page_size,
)
from dafh_gateway.pages import ListPage, PageTokens, fingerprint
from dafh_gateway.settings import GatewaySettings

#: Most cases that one call names.
MOST_NAMES = 1000
#: Cases that one page of `ListCases` looks at, at most, for those that a filter selects.
MOST_SCANNED = 20_000
#: Cases of one read.
SCANNED = 1000


class ArchiveService:
    """Keeps archives."""

    def __init__(
        self, backend: Backend, asking: Asking, pages: PageTokens, settings: GatewaySettings
    ) -> None:
        self._backend = backend
        self._asking = asking
        self._pages = pages
        self._settings = settings
        self._addresses = messages.Addresses(settings.retrieve_uri)

    def IndexCases(
        self, requests: Incoming[archive_service_pb2.IndexCasesRequest], call: Call
    ) -> Iterator[archive_service_pb2.IndexCasesResponse]:
        """Store images as they arrive."""
        stream = IndexStream(self._backend, self._asking, self._settings, call)
        yield from stream.run(requests)

    def GetCase(self, request: archive_service_pb2.GetCaseRequest, call: Call) -> case_pb2.Case:
        """Return one case."""
        call.archive, case = parse_case(request.name)
        mask = Mask(request.read_mask, case_pb2.Case.DESCRIPTOR)
        full = messages.is_full(request.view, request.read_mask, case_pb2.CASE_VIEW_FULL)
        index = self._backend.archive(call.tenant, call.archive, call.deadline).index(call.deadline)
        stored = index.get([case], call.deadline).get(case)
        if stored is None:
            raise NotFound(Reason.CASE_NOT_FOUND, "There is no such case.", subject="name")
        message = messages.case_message(call.archive, stored, self._addresses, full=full)
        mask.apply(message)
        call.count = 1
        return message

    def ListCases(
        self, request: archive_service_pb2.ListCasesRequest, call: Call
    ) -> archive_service_pb2.ListCasesResponse:
        """Return cases in order of name; a page that took long to fill may be short."""
        call.archive = parse_archive(request.parent, "parent")
        mask = Mask(request.read_mask, case_pb2.Case.DESCRIPTOR)
        full = messages.is_full(request.view, request.read_mask)
        size, mark = parse_page_size(request.page_size), _mark(request)
        after = self._after(request.page_token, mark, call)
        cases, end = self._scan(call, request.filter, after, size)
        response = archive_service_pb2.ListCasesResponse()
        for case in cases:
            message = messages.case_message(call.archive, case, self._addresses, full=full)
            mask.apply(message)
            response.cases.append(message)
        if end is not None:
            response.next_page_token = self._token(end, mark, call)
        call.count = len(cases)
        return response

    def DeleteCases(
        self, request: archive_service_pb2.DeleteCasesRequest, call: Call
    ) -> archive_service_pb2.DeleteCasesResponse:
        """Erase cases."""
        call.archive = parse_archive(request.parent, "parent")
        selection = self._selection(request, call)
        eraser = self._backend.eraser(call.tenant, call.archive, call.deadline)
        act = eraser.count if request.validate_only else eraser.erase
        count = act(selection, call.deadline)
        call.count = 0 if request.validate_only else count
        return archive_service_pb2.DeleteCasesResponse(deleted_count=count)

    def CreateArchive(
        self, request: archive_service_pb2.CreateArchiveRequest, call: Call
    ) -> archive_pb2.Archive:
        """Create an empty archive; the same again is no fault."""
        if not ARCHIVE_ID.fullmatch(request.archive_id):
            raise invalid(
                "archive_id",
                "archive_id has 1 to 63 lower-case letters, digits and hyphens; it begins with a "
                "letter and does not end with a hyphen.",
            )
        call.archive, wanted = request.archive_id, request.archive
        if wanted.name not in ("", archive_name(call.archive)):
            raise invalid("archive.name", "archive.name is not that of archive_id.")
        if wanted.model_version < 0:
            raise invalid("archive.model_version", "model_version is negative.")
        version = wanted.model_version or self._backend.preferred
        model = self._backend.encoder(version, call.deadline).model
        bits = wanted.bits or DEFAULT_BITS
        if bits not in model.bits:
            raise invalid("archive.bits", f"The model gives codes of {sorted(model.bits)} bits.")
        coding = self._backend.coding(call.tenant, call.archive, model, bits)
        catalogue = self._backend.catalogue(call.tenant, call.deadline)
        call.count = 1
        return self._message(catalogue, catalogue.create(coding, call.deadline), call)

    def GetArchive(
        self, request: archive_service_pb2.GetArchiveRequest, call: Call
    ) -> archive_pb2.Archive:
        """Describe an archive."""
        call.archive = parse_archive(request.name, "name")
        catalogue = self._backend.catalogue(call.tenant, call.deadline)
        call.count = 1
        return self._message(catalogue, catalogue.get(call.archive, call.deadline), call)

    def ListArchives(
        self, request: archive_service_pb2.ListArchivesRequest, call: Call
    ) -> archive_service_pb2.ListArchivesResponse:
        """Return the tenant's archives in order of name."""
        size, mark = parse_page_size(request.page_size), _mark(request)
        after = self._after(request.page_token, mark, call)
        catalogue = self._backend.catalogue(call.tenant, call.deadline)
        archives = [one for one in catalogue.all(call.deadline) if one.name > after]
        response = archive_service_pb2.ListArchivesResponse(
            archives=[self._message(catalogue, one, call) for one in archives[:size]]
        )
        if len(archives) > size:
            response.next_page_token = self._token(archives[size - 1].name, mark, call)
        call.count = len(response.archives)
        return response

    def DeleteArchive(self, request: archive_service_pb2.DeleteArchiveRequest, call: Call) -> Empty:
        """Delete an archive with all its codings."""
        call.archive = parse_archive(request.name, "name")
        self._backend.catalogue(call.tenant, call.deadline).delete(
            call.archive,
            call.deadline,
            force=request.force,
            allow_missing=request.allow_missing,
            etag=request.etag,
        )
        call.count = 1
        return Empty()

    def SwitchArchive(
        self, request: archive_service_pb2.SwitchArchiveRequest, call: Call
    ) -> archive_service_pb2.SwitchArchiveResponse:
        """Make another coding the live one."""
        call.archive = parse_archive(request.name, "name")
        catalogue = self._backend.catalogue(call.tenant, call.deadline)
        archive = catalogue.get(call.archive, call.deadline)
        to = next(
            (
                one.coding
                for one in archive.codings
                if one.coding.model_version == request.model_version
            ),
            None,
        )
        if to is None:
            raise NotFound(
                Reason.CODING_NOT_FOUND,
                f"The archive has no coding of model version {request.model_version}.",
                subject="model_version",
            )
        self._backend.encoder_of(to, call.deadline)
        switched = catalogue.switch(
            call.archive,
            to.key,
            call.deadline,
            allow_missing_cases=request.allow_missing_cases,
            validate_only=request.validate_only,
            etag=request.etag,
        )
        call.count = 0 if request.validate_only else 1
        return archive_service_pb2.SwitchArchiveResponse(
            archive=self._message(catalogue, switched.archive, call),
            missing_case_count=switched.missing.count,
            missing_cases=[case_name(call.archive, key) for key in switched.missing.first],
        )

    def _scan(self, call: Call, text: str, after: str, size: int) -> tuple[list[Case], str | None]:
        """Return cases that a filter selects, and where to go on; ``None`` at the end."""
        tree = parse(text)
        live = self._backend.archive(call.tenant, call.archive, call.deadline)
        coding = live.archive(call.deadline).live
        rows = self._backend.catalogue(call.tenant, call.deadline).rows(coding)
        found: list[Case] = []
        length = size + 1 if tree is None else SCANNED
        for _ in range(0, MOST_SCANNED, SCANNED):
            page = rows.page(after, length, call.deadline)
            for place, case in enumerate(page):
                if tree is None or matches(tree, case):
                    found.append(case)
                after = case.id
                if len(found) == size:
                    rest = place + 1 < len(page) or len(page) == length
                    return found, after if rest else None
            if len(page) < length:
                return found, None
        return found, after

    def _selection(self, request: archive_service_pb2.DeleteCasesRequest, call: Call) -> Selection:
        match request.WhichOneof("selection"):
            case "cases":
                names = request.cases.names
                if not 1 <= len(names) <= MOST_NAMES:
                    raise invalid("cases.names", f"1 to {MOST_NAMES} cases are named at once.")
                ids: list[CaseId] = []
                for name in names:
                    home, key = parse_case(name, "cases.names")
                    if home != call.archive:
                        raise invalid("cases.names", "A case belongs to another archive.")
                    ids.append(key)
                return Cases(tuple(ids))
            case "study_instance_uid":
                return Study(request.study_instance_uid)
            case "patient":
                keyer = self._backend.keyer(call.tenant)
                patient = keyer.patient(request.patient.issuer, request.patient.patient_id)
                if not patient:
                    raise invalid("patient.patient_id", "The Patient ID is blank.")
                return Patient(patient, keyer.key_id)
            case _:
                raise invalid("selection", "Nothing is selected.")

    def _message(self, catalogue: Archives, archive: Archive, call: Call) -> archive_pb2.Archive:
        deadline = call.deadline
        counts = {
            one.coding.key: catalogue.rows(one.coding).count(deadline) for one in archive.codings
        }
        live = counts[archive.live.key]
        filling = [
            one.coding.key
            for one in archive.codings[1:]
            if counts[one.coding.key] < live
            or FillNote(catalogue.ledger, one.coding).read(deadline)[0] is not None
        ]
        return messages.archive_message(archive, counts, filling)

    def _after(self, token: str, mark: str, call: Call) -> str:
        return self._pages.read(ListPage, token, call.tenant, mark).after if token else ""

    def _token(self, after: str, mark: str, call: Call) -> str:
        return self._pages.write(ListPage(tenant=call.tenant, request=mark, after=after))


def _mark(
    request: archive_service_pb2.ListCasesRequest | archive_service_pb2.ListArchivesRequest,
) -> str:
    return fingerprint(request, "page_size", "page_token")
