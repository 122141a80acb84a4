"""What the index needs of a server: to be let in, to know what it can do, to see its own writes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from pymilvus import MilvusException

from dafh.deadline import Deadline
from dafh.errors import FailedPrecondition, Misconfigured, Reason, Unavailable
from dafh.index.capabilities import _QUESTIONS, Capabilities, capabilities
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection, DataType, MilvusClient
from dafh.index.endpoint import Endpoint, endpoint
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Query
from dafh.settings import MilvusSettings
from tests.index.servers import ROOT_PASSWORD, USER, LiteServer, Server, StandaloneServer

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint, Coding], MilvusIndex]

TLS_FILES = ("milvus_ca", "milvus_certificate", "milvus_key")


def soon() -> Deadline:
    return Deadline.after(20)


def collections(connection: Connection) -> set[str]:
    return set(
        connection.run(
            "x", soon(), lambda client, timeout: client.list_collections(timeout=timeout)
        )
    )


@pytest.mark.parametrize(
    "uri",
    [
        *("", "x.db", "localhost:1", "http://localhost", "http://127.0.0.1:x", "tcp://127.0.0.1:1"),
        *("http://root:secret@127.0.0.1:1", "http://127.0.0.1:1/database"),
    ],
)
def test_a_uri_of_another_form_is_a_wrong_setting(uri: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        Connection(uri, soon())
    assert refusal.value.subject == "milvus_uri"
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "milvus", "192.0.2.1", "[2001:db8::1]", "localhost.evil"]
)
def test_plaintext_never_leaves_this_machine(host: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        Connection(f"http://{host}:19530", soon())
    assert refusal.value.reason is Reason.INSECURE_ADDRESS


@pytest.mark.parametrize("missing", TLS_FILES)
def test_mutual_tls_is_set_whole_or_not_at_all(missing: str, tmp_path: Path) -> None:
    files: dict[str, Any] = dict.fromkeys(TLS_FILES, tmp_path)
    del files[missing]
    with pytest.raises(Misconfigured):
        endpoint(MilvusSettings(milvus_uri="https://milvus:19530", **files), "default")
    with pytest.raises(Misconfigured):
        Connection("https://milvus:19530", soon())


def test_settings_become_an_endpoint(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ca", "certificate", "key", "credentials")]
    made = endpoint(
        MilvusSettings(
            milvus_uri="https://milvus:19530",
            milvus_database="hospital",
            milvus_ca=files[0],
            milvus_certificate=files[1],
            milvus_key=files[2],
            milvus_server_name="milvus.internal",
            milvus_credentials=files[3],
        ),
        "default",
    )
    assert made.tls is not None
    assert [made.tls.ca, made.tls.certificate, made.tls.key, made.credentials] == files
    assert (made.database, made.tls.server_name) == ("hospital", "milvus.internal")
    assert made.address == "milvus:19530"


@pytest.mark.stack
def test_nobody_is_let_in_with_other_credentials(
    standalone: StandaloneServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = standalone.endpoint
    assert known.tls is not None
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger = other.issue_cert("dafh.test")
    (tmp_path / "key.pem").touch(0o600)
    stranger.private_key_pem.write_to_path(tmp_path / "key.pem")
    stranger.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    wrong = {
        "password": standalone.endpoint_of("nobody", "Not-the-password-1"),
        "no credentials": replace(known, credentials=None),
        "server": replace(known, tls=replace(known.tls, ca=tmp_path / "ca.pem")),
        "server name": replace(known, tls=replace(known.tls, server_name="another.test")),
        "client": replace(
            known,
            tls=replace(
                known.tls, certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem"
            ),
        ),
    }
    for name, server in wrong.items():
        with pytest.raises(FailedPrecondition) as refusal:
            Connection(server, soon())
        assert refusal.value.reason is Reason.INDEX_UNAVAILABLE, name
        assert "Not-the-password" not in str(refusal.value)
    assert "Not-the-password" not in "".join(capfd.readouterr())
    Connection(known, soon()).close()


@pytest.mark.parametrize("spoilt", ["ca", "certificate", "key"])
@pytest.mark.stack
def test_files_of_tls_are_refused_before_they_are_used(
    standalone: StandaloneServer, tmp_path: Path, spoilt: str
) -> None:
    known = standalone.endpoint
    assert known.tls is not None
    wrong = tmp_path / "wrong.pem"
    wrong.touch(0o600)
    wrong.write_text("no PEM")
    for path in (wrong, tmp_path / "missing.pem"):
        changed: dict[str, Any] = {spoilt: path}
        with pytest.raises(Misconfigured):
            Connection(replace(known, tls=replace(known.tls, **changed)), soon())


@pytest.mark.stack
def test_secrets_that_others_can_read_are_not_used(standalone: StandaloneServer) -> None:
    known = standalone.endpoint_of("careless", "Any-password-1")
    assert known.credentials is not None
    known.credentials.chmod(0o644)
    with pytest.raises(Misconfigured) as refusal:
        Connection(known, soon())
    assert refusal.value.reason is Reason.KEY_UNSAFE


@pytest.mark.stack
def test_a_database_that_is_not_there_is_the_operator_s_to_make(
    standalone: StandaloneServer, new_coding: NewCoding
) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        MilvusIndex.open(replace(standalone.endpoint, database="nowhere"), new_coding(), soon())
    assert refusal.value.subject == "milvus_database"


@pytest.mark.stack
def test_the_service_s_role_rules_nobody(standalone: StandaloneServer) -> None:
    with closing(Connection(standalone.endpoint, soon())) as connection:
        for forbidden in (
            lambda client, _: client.create_user("mallory", "Password-1"),
            lambda client, _: client.drop_user("root"),
            lambda client, _: client.update_password("root", ROOT_PASSWORD, "Password-1"),
            lambda client, _: client.create_role("ruler"),
            lambda client, _: client.grant_role(USER, "admin"),
            lambda client, _: client.create_database("elsewhere"),
        ):
            with pytest.raises(FailedPrecondition):
                connection.run("trying", soon(), forbidden)


@pytest.mark.stack
def test_what_a_server_can_do_is_found_out_and_nothing_stays(
    lite: LiteServer, standalone: StandaloneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server, can in ((lite, False), (standalone, True)):
        with closing(Connection(server.endpoint, soon())) as connection:
            before = collections(connection)
            found = capabilities(connection, soon())
            assert found == Capabilities(*[can] * 5)
            assert collections(connection) == before
            # The second time nobody is asked.
            monkeypatch.setattr(connection, "run", None)
            assert capabilities(connection, soon()) is found
    found.require("aliases")
    with pytest.raises(FailedPrecondition) as refusal:
        replace(found, aliases=False).require("aliases")
    assert refusal.value.reason is Reason.INDEX_INCAPABLE


@pytest.mark.stack
def test_what_a_server_failed_to_say_is_asked_again(
    standalone: StandaloneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_arguments: object) -> bool:
        raise MilvusException(65535, "something broke")

    with closing(Connection(standalone.endpoint, soon())) as connection:
        with monkeypatch.context() as patch:
            patch.setitem(_QUESTIONS, "aliases", failing)
            assert not capabilities(connection, soon()).aliases
        assert capabilities(connection, soon()).aliases


@pytest.mark.stack
def test_what_a_program_left_that_died_while_it_asked_is_swept_up(server: Server) -> None:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("code", DataType.BINARY_VECTOR, dim=8)
    left, other = "dafh_probe_1700000000_0123456789abcdef", "dafh_probe_me"
    with closing(Connection(server.endpoint, soon())) as connection:
        connection.run("x", soon(), lambda client, _: client.create_collection(left, schema=schema))
        connection.run(
            "x", soon(), lambda client, _: client.create_collection(other, schema=schema)
        )
        capabilities(connection, soon())
        assert left not in collections(connection)
        assert other in collections(connection)
        connection.run("x", soon(), lambda client, _: client.drop_collection(other))


@pytest.mark.stack
def test_an_acknowledged_case_is_found_over_every_connection_at_once(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    writer = opened(server.endpoint, coding)
    readers = [opened(server.endpoint, coding) for _ in range(3)]

    def sees(reader: MilvusIndex, case: Case) -> bool:
        hits = reader.search(Query(case.code, 1), soon()).hits
        return reader.get([case.id], soon()) == {case.id: case} and hits[0].case == case

    with ThreadPoolExecutor(len(readers)) as pool:
        for start in range(0, 160, 8):
            cases = [new_case(coding, number) for number in range(start, start + 8)]
            writer.upsert(cases, soon())
            for found in [pool.submit(sees, r, c) for r in readers for c in (cases[0], cases[-1])]:
                assert found.result()
            assert writer.delete([cases[0].id], soon()) == 1
            assert not any(reader.get([cases[0].id], soon()) for reader in readers)


@pytest.mark.stack
def test_a_standalone_server_speaks_no_plaintext_and_leaves_no_process(tmp_path: Path) -> None:
    with StandaloneServer(tmp_path) as server:
        pid = server.pid
        with pytest.raises(Unavailable):
            Connection(f"http://127.0.0.1:{server.port}", soon())
    assert not Path(f"/proc/{pid}").exists()
