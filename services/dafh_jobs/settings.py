"""Settings of jobs that are no options."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from dafh.settings import Settings


class JobSettings(Settings):
    """How hard a job works, and how long it waits."""

    #: Batches that are on their way to Triton and Milvus at the same time.
    batches: int = Field(default=4, ge=1, le=64)
    #: Seconds for which Triton or Milvus may be away before the job gives up.
    server_patience: float = Field(default=600.0, gt=0)
    #: Parts of an Indexed Job: its `completions`.
    shards: int | None = Field(default=None, ge=1)


class KubernetesSettings(BaseSettings):
    """What Kubernetes tells the pods of an Indexed Job."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    job_completion_index: int | None = Field(default=None, ge=0)
