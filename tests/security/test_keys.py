"""A key file is for the program alone, in whatever way its platform can say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dafh.errors import Misconfigured, Reason
from dafh.security.keys import is_exposed, read_secret

#: Of the user that the images of the chart run as, which is also its group.
POD = 10001


@pytest.mark.parametrize(
    ("mode", "owner", "exposed"),
    [
        (0o600, POD, False),
        (0o400, POD, False),
        (0o640, POD, True),
        (0o440, POD, True),
        # As Kubernetes mounts a Secret for a pod with fsGroup.
        (0o440, 0, False),
        (0o640, 0, False),
        (0o444, 0, True),
        (0o460, 0, True),
        (0o450, 0, True),
        (0o440, 501, True),
    ],
)
def test_only_the_program_or_its_pod_may_read(mode: int, owner: int, exposed: bool) -> None:
    assert is_exposed(0o100000 | mode, owner=owner, user=POD) is exposed


def test_for_root_a_file_of_its_own_is_no_mounted_secret() -> None:
    assert is_exposed(0o440, owner=0, user=0)


def test_a_key_that_its_own_group_can_read_is_refused_with_both_remedies(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("5a" * 32)
    key.chmod(0o440)
    with pytest.raises(Misconfigured) as caught:
        read_secret(key)
    assert caught.value.reason is Reason.KEY_UNSAFE
    assert "chmod 600" in caught.value.remedy
    assert "fsGroup" in caught.value.remedy
