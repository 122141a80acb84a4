"""Answers as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dafh.v1 import retrieval_service_pb2

if TYPE_CHECKING:
    import pandas as pd

#: Column -> type in pandas; each but the first four is a field of `dafh.v1.Case`.
COLUMNS = {
    "case": "string",
    "distance": "Int64",
    "score": "Float64",
    "probability": "Float64",
    "study_instance_uid": "string",
    "series_instance_uid": "string",
    "sop_instance_uid": "string",
    "frame": "Int64",
    "modality": "string",
    "body_part": "string",
    "label": "string",
    "cancer_type": "string",
    "retrieve_uri": "string",
}


def to_pandas(response: retrieval_service_pb2.RetrieveResponse) -> pd.DataFrame:
    """Return the hits of an answer as a data frame, the nearest first.

    A hit without a probability has a missing value there, not 0. Needs pandas.
    """
    # Not everybody who asks needs it.
    import pandas as pd

    of_case = list(COLUMNS)[4:]
    rows = [
        {
            "case": hit.case.name,
            "distance": hit.distance,
            "score": hit.score,
            "probability": hit.probability if hit.HasField("probability") else None,
            **{name: getattr(hit.case, name) for name in of_case},
        }
        for hit in response.hits
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
