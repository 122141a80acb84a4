"""What zip and tar archives hold comes as it is; what is wrong with them is reported."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pytest

from dafh.errors import Reason
from dafh.imaging.limits import DEFAULT_LIMITS
from tests.jobs.reading import MOST, bytes_of, faults, found, tarred, zipped

TAR_MODES = {
    "a.tar": "w",
    "a.tar.gz": "w:gz",
    "a.tgz": "w:gz",
    "a.tar.bz2": "w:bz2",
    "a.txz": "w:xz",
}


def test_a_zip_archive_is_read_as_it_stands(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(folder))
    read = found(tmp_path / "a.ZIP")
    assert sorted(bytes_of(read)) == sorted(bytes_of(found(folder)))
    assert len({entry.name for entry in read}) == len(read)
    whole = (tmp_path / "a.ZIP").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-100])
    (entry,) = found(tmp_path / "cut.zip")
    assert faults([entry]) == ["CONTAINER_DAMAGED"]
    assert entry.read(MOST).sha256 == hashlib.sha256(whole[:-100]).hexdigest()
    spoiled = bytearray(whole)
    spoiled[200:210] = b"\0" * 10
    (tmp_path / "spoiled.zip").write_bytes(spoiled)
    read = found(tmp_path / "spoiled.zip")
    assert (len(read), faults(read)) == (4, ["CONTAINER_DAMAGED"])


@pytest.mark.parametrize("name", TAR_MODES)
def test_a_tar_archive_is_read_as_a_stream(folder: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, TAR_MODES[name]) as archive:  # type: ignore[call-overload]  # one of its modes
        archive.add(folder, "x")
    assert sorted(bytes_of(found(tmp_path / name))) == sorted(bytes_of(found(folder)))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(whole[: len(whole) // 2])
    read = found(tmp_path / f"cut-{name}")
    assert 0 < len(read) <= 4
    assert faults(read) == ["CONTAINER_DAMAGED"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive_damaged_anywhere_is_reported_and_ends_nothing(
    tmp_path: Path, kind: str
) -> None:
    random = Random(8)  # noqa: S311 - it guards nothing
    members = {f"é{number}": random.randbytes(300) for number in range(5)}
    mode = f"w:{kind.rpartition('.')[2].replace('tgz', 'gz')}" if kind != "tar" else "w"
    sound = (
        zipped(tmp_path, members)
        if kind == "zip"
        else tarred(tmp_path / "a", *members.items(), mode=mode)
    )
    whole = sound.read_bytes()
    for number in range(300):
        spoiled = bytearray(whole)
        for _ in range(random.choice((1, 3, 40))):
            spoiled[random.randrange(len(whole))] = random.choice((0, 255, random.randrange(256)))
        damaged = tmp_path / f"{number}.{kind}"
        damaged.write_bytes(spoiled)
        read = found(damaged)
        told = faults(read)
        # Another run would find the same.
        assert "unreadable" not in told
        # Nothing is missing in silence; that its bytes are others only some kinds can tell.
        assert told or len(read) == len(members)
        if kind not in {"tar", "tgz"} and not told:
            assert set(bytes_of(read)) == set(members.values())


def test_names_and_headers_that_the_libraries_do_not_bear_end_nothing(tmp_path: Path) -> None:
    whole = zipped(tmp_path, {"é": b"1", "~": b"2"}).read_bytes()
    (tmp_path / "none.zip").write_bytes(whole.replace(b"~", b"\0"))
    assert bytes_of(found(tmp_path / "none.zip")) == [b"1", b"2"]
    (tmp_path / "name.zip").write_bytes(whole.replace("é".encode(), b"\xff\xff"))
    # Flags of a header that is longer than the file.
    (tmp_path / "short.tgz").write_bytes(b"\x1f\x8b\x08\x04" + bytes(6))
    for name in ("name.zip", "short.tgz"):
        assert faults(found(tmp_path / name)) == ["CONTAINER_DAMAGED"]


def test_members_behind_a_damaged_header_of_a_tar_are_not_left_out_in_silence(
    tmp_path: Path,
) -> None:
    file = tarred(tmp_path / "a.tar", ("x", b"1"), ("y", b"2"), ("z", b"3"))
    spoiled = bytearray(file.read_bytes())
    spoiled[1024 + 148] ^= 1
    file.write_bytes(spoiled)
    read = found(file)
    assert faults(read) == ["CONTAINER_DAMAGED"]
    assert bytes_of(read[:1]) == [b"1"]


def test_an_encrypted_or_oddly_compressed_member_says_so(tmp_path: Path) -> None:
    whole = bytearray(zipped(tmp_path, {"locked": b"1", "odd": b"2", "x": b"3"}).read_bytes())
    for name, offset, value in ((b"locked", -38, 1), (b"odd", -36, 9)):
        # The flags and the method in the central directory (APPNOTE 4.3.12).
        whole[whole.rindex(name) + offset] |= value
    for name, offset, value in ((b"locked", -24, 1), (b"odd", -22, 9)):
        # The same in the local header.
        whole[whole.index(name) + offset] |= value
    (tmp_path / "b.zip").write_bytes(whole)
    read = found(tmp_path / "b.zip")
    assert faults(read) == ["CONTAINER_ENCRYPTED", "CONTAINER_UNSUPPORTED"]
    assert bytes_of(read[2:]) == [b"3"]


def test_a_member_that_is_too_large_is_not_unpacked(tmp_path: Path) -> None:
    large = b"0" * (DEFAULT_LIMITS.request_bytes + 1)
    spoiled = bytearray(zipped(tmp_path, {"a": large, "b": b"2"}).read_bytes())
    # Whoever unpacked it would find it damaged.
    spoiled[100:110] = bytes(10)
    (tmp_path / "a.zip").write_bytes(spoiled)
    tarred(tmp_path / "a.tar", ("a", large), ("b", b"2"))
    for name in ("a.zip", "a.tar"):
        first, second = found(tmp_path / name)
        content = first.read(DEFAULT_LIMITS.request_bytes + 1)
        assert content.fault is not None
        assert (content.fault.reason, content.size) == (Reason.TOO_LARGE, len(large))
        assert (content.beginning, content.sha256) == (b"", "")
        assert second.read(MOST).beginning == b"2"


def test_members_of_one_name_are_several_entries(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", ("x", b"1"), ("y", b"2"), ("x", b"3"), ("x", b"4"))
    whole = zipped(tmp_path, {"x": b"1", "y": b"2"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace(b"y", b"x"))
    for name, number in (("a.tar", 4), ("a.zip", 2)):
        read = found(tmp_path / name)
        assert len({entry.name for entry in read}) == len(read) == number
        assert [entry.name for entry in read] == [entry.name for entry in found(tmp_path / name)]


def test_links_in_a_tar_are_not_left_out_in_silence(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("to", tarfile.SYMTYPE),
            ("pipe", tarfile.FIFOTYPE),
            ("d", tarfile.DIRTYPE),
        ):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/mnt/2019"
            archive.addfile(header)
    assert faults(found(tmp_path / "a.tar")) == ["NOT_A_FILE"] * 2
