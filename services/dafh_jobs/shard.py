"""A part of a job: the instances whose UID falls to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh.settings import load
from dafh_jobs.settings import JobSettings, KubernetesSettings

_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, numbered from 0 as Kubernetes numbers the pods of an Indexed Job.

    An instance belongs to one part, by its SOP Instance UID: all copies and versions of it meet in
    the same part. A file without a UID belongs to one by its bytes.
    """

    number: int = 0
    count: int = 1

    def has(self, sop_instance_uid: str, sha256: str) -> bool:
        """Say whether an instance belongs to this part."""
        if self.count == 1:
            return True
        named = hashlib.sha256((sop_instance_uid or sha256).encode()).digest()
        return int.from_bytes(named[:8], "big") % self.count == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard()


def parse_shard(text: str) -> Shard:
    """Read a part written as ``number/count``.

    Raises
    ------
    InvalidInput
        It is not of that form, or there is no such part.

    Examples
    --------
    >>> parse_shard("2/3")
    Shard(number=2, count=3)
    """
    found = _FORM.fullmatch(text)
    if found is None or not int(found[1]) < int(found[2]):
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "A shard is i/n, with i from 0 to n - 1.",
            subject="shard",
        )
    return Shard(int(found[1]), int(found[2]))


def chosen_shard(option: str) -> Shard:
    """Return the part that an option names, else the one that Kubernetes gave this pod.

    Raises
    ------
    InvalidInput
        The option names none.
    Misconfigured
        Kubernetes gave one, and DAFH_SHARDS does not say of how many.
    """
    if option:
        return parse_shard(option)
    number = load(KubernetesSettings).job_completion_index
    if number is None:
        return WHOLE
    count = load(JobSettings).shards
    if count is None or number >= count:
        raise Misconfigured(
            Reason.SETTING_INVALID,
            f"This is part {number} of an Indexed Job, and DAFH_SHARDS does not say of how many.",
            remedy="Set DAFH_SHARDS to the job's completions.",
            subject="shards",
        )
    return Shard(number, count)
