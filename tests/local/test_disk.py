"""A full or foreign disk gives one clear sentence."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from dafh.errors import Misconfigured, Reason
from dafh_local.disk import make_private, require_space, writing


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EFBIG, Reason.DISK_FULL),
        (errno.EROFS, Reason.SETTING_INVALID),
        (errno.EACCES, Reason.SETTING_INVALID),
    ],
)
def test_errors_of_the_system_become_sentences(tmp_path: Path, number: int, reason: Reason) -> None:
    with pytest.raises(Misconfigured, match=str(tmp_path)) as caught, writing(tmp_path):
        raise OSError(number, "as the kernel says it")
    assert caught.value.reason is reason


def test_other_errors_pass() -> None:
    with pytest.raises(OSError, match="strange"), writing(Path()):
        raise OSError(errno.EIO, "strange")


def test_write_to_a_full_device_is_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "note").symlink_to("/dev/full")
    with pytest.raises(Misconfigured) as caught, writing(tmp_path):
        (tmp_path / "note").write_text("x")
    assert caught.value.reason is Reason.DISK_FULL


def test_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be written") as caught:
        make_private(tmp_path / "file")
    assert caught.value.reason is Reason.SETTING_INVALID


def test_too_little_space_is_said_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"Only \d+ MiB .* needs 1000000000") as caught:
        require_space(tmp_path, 10**9)
    assert caught.value.reason is Reason.DISK_FULL
    require_space(tmp_path, 0)


def test_new_and_empty_folders_are_made_private(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    for folder in (empty, tmp_path / "new" / "deep"):
        make_private(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_folder_in_use_and_open_to_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    (folder / "file").touch()
    with pytest.raises(Misconfigured, match="open to other users") as caught:
        make_private(folder)
    assert caught.value.reason is Reason.KEY_UNSAFE
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
