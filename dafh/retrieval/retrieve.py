"""One query from bytes to an answer; the gateway, jobs and evaluation all ask through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.calibration import NEIGHBOURHOOD, agreement
from dafh.encoding.port import Encoded, Encoder, ModelVersion
from dafh.errors import InvalidInput, NotFound, Reason
from dafh.imaging.image import Image
from dafh.index.case import CaseId
from dafh.index.filters.tree import Filter
from dafh.index.port import MAX_TOP_K, CaseIndex, Exclude, Found, Hit, Position, Query

DEFAULT_TOP_K = 10


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer."""

    top_k: int = DEFAULT_TOP_K
    #: Largest Hamming distance, bits, inclusive.
    max_distance: int | None = None
    #: Let the query's own instance, study and patient fill the answer.
    include_same_patient: bool = False
    #: Which cases may answer; ``None`` for all.
    filter: Filter | None = None
    #: Most hits of one patient and of one series (`dafh.index.port.Query`).
    max_hits_per_patient: int | None = None
    max_hits_per_series: int | None = None
    #: Answer with what follows this place.
    after: Position | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"top_k is {self.top_k}; it must lie between 1 and {MAX_TOP_K}.",
                subject="top_k",
            )
        if self.max_distance is not None and self.max_distance < 0:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID, "max_distance is negative.", subject="max_distance"
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """What the network says of the query image itself."""

    image: Image
    hash_output: NDArray[np.float32]
    predicted_class: str
    #: Softmax of the classifier for that class, in (0, 1].
    class_probability: float
    #: Higher is stranger.
    ood_score: float
    #: ``None`` where the model version has no fitted threshold.
    in_distribution: bool | None
    #: (class, probability, logit), most probable first.
    classes: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits with the probability that each is relevant, and what is known of the query."""

    #: What was asked of the index.
    query: Query
    model: ModelVersion
    found: Found
    #: One per hit; ``None`` where the case has no label or the model no fitted curve.
    probabilities: tuple[float | None, ...]
    #: ``None`` where the query was not an image.
    reading: Reading | None = None

    @property
    def code(self) -> HashCode:
        """The code that was searched for."""
        return self.query.code


class Retriever:
    """Answers queries against one coding.

    Parameters
    ----------
    encoder
        Encoder of the model version that made the coding.
    index
        The coding.
    """

    def __init__(self, encoder: Encoder, index: CaseIndex) -> None:
        self._encoder = encoder
        self._index = index

    def by_image(
        self, decode: Callable[[ModelVersion], Image], options: Options, deadline: Deadline
    ) -> Answer:
        """Answer for an image.

        Parameters
        ----------
        decode
            Makes the model input for a model version; called once.
        """
        model = self._encoder.model
        deadline.remaining("decoding")
        image = decode(model)
        encoded = self._encoder.encode(image.pixels[None], deadline)
        return self.by_encoded(image, encoded, options, deadline)

    def by_encoded(
        self, image: Image, encoded: Encoded, options: Options, deadline: Deadline
    ) -> Answer:
        """Answer for an image that the encoder has encoded already, alone in its batch."""
        reading = read(image, encoded, 0, self._index.coding.bits, self._encoder.model)
        exclude = Exclude()
        if not options.include_same_patient:
            metadata = image.metadata
            exclude = Exclude(
                metadata.sop_instance_uid, metadata.study_instance_uid, metadata.patient_key
            )
        code = HashCode.of(reading.hash_output)
        return self._answer(code, reading.hash_output, exclude, options, deadline, reading)

    def by_case(self, case: CaseId, options: Options, deadline: Deadline) -> Answer:
        """Answer for a case that is already in the archive ("more like this")."""
        stored = self._index.get([case], deadline).get(case)
        if stored is None:
            raise NotFound(
                Reason.CASE_NOT_FOUND,
                "There is no such case in the archive.",
                subject="query.case",
            )
        exclude = Exclude()
        if not options.include_same_patient:
            exclude = Exclude(
                stored.sop_instance_uid, stored.study_instance_uid, stored.patient_key
            )
        return self._answer(stored.code, None, exclude, options, deadline, None)

    def by_code(
        self,
        code: HashCode,
        hash_output: NDArray[np.float32] | None,
        options: Options,
        deadline: Deadline,
        exclude: Exclude = Exclude(),  # noqa: B008 - frozen
    ) -> Answer:
        """Answer for a code made before by the same model.

        Parameters
        ----------
        exclude
            What may not answer, where more is known of the query than its code.
        """
        return self._answer(code, hash_output, exclude, options, deadline, None)

    def _answer(
        self,
        code: HashCode,
        hash_output: NDArray[np.float32] | None,
        exclude: Exclude,
        options: Options,
        deadline: Deadline,
        reading: Reading | None,
    ) -> Answer:
        model = self._encoder.model
        self._index.coding.require_model(model.hash)
        query = Query(
            code,
            options.top_k,
            hash_output,
            options.max_distance,
            exclude,
            options.filter,
            options.max_hits_per_patient,
            options.max_hits_per_series,
            options.after,
        )
        found, nearest = self._search(query, deadline)
        probabilities = relevance(model, code.bits, found.hits, nearest)
        return Answer(query, model, found, probabilities, reading)

    def _search(self, query: Query, deadline: Deadline) -> tuple[Found, Sequence[Hit]]:
        """Return an answer, and the first hits of the whole answer that it is cut from.

        These vouch for each other, so that a hit is as probable on whatever page it is told.
        """
        whole = replace(query, max_distance=None, after=None, top_k=NEIGHBOURHOOD)
        if query.after is not None:
            return self._index.search(query, deadline), self._index.search(whole, deadline).hits
        wide = replace(query, top_k=max(query.top_k, NEIGHBOURHOOD))
        found = self._index.search(wide, deadline)
        nearest = found.hits[:NEIGHBOURHOOD]
        if len(nearest) < NEIGHBOURHOOD and query.max_distance is not None:
            nearest = self._index.search(whole, deadline).hits
        if found.ties_truncated and wide != query:
            # Perhaps beyond what was asked for.
            return self._index.search(query, deadline), nearest
        return replace(found, hits=found.hits[: query.top_k]), nearest


def read(image: Image, encoded: Encoded, row: int, bits: int, model: ModelVersion) -> Reading:
    """Return what the network says of one image of an encoded batch."""
    logits = encoded.logits[row].astype(np.float64)
    powers = np.exp(logits - logits.max())
    shares = powers / powers.sum()
    classes = tuple(
        (model.classes[place], float(shares[place]), float(logits[place]))
        for place in np.argsort(-logits, kind="stable")
    )
    own = {length: outputs[row : row + 1] for length, outputs in encoded.hashes.items()}
    ood_score = float(model.calibration.ood_scores(own, encoded.logits[row : row + 1])[0])
    return Reading(
        image=image,
        hash_output=encoded.hashes[bits][row],
        predicted_class=classes[0][0],
        class_probability=classes[0][1],
        ood_score=ood_score,
        in_distribution=model.calibration.in_distribution(ood_score),
        classes=classes,
    )


def relevance(
    model: ModelVersion, bits: int, hits: Sequence[Hit], nearest: Sequence[Hit]
) -> tuple[float | None, ...]:
    """Return for each hit the probability that it is relevant, where its case is labelled.

    Parameters
    ----------
    nearest
        The first hits of the whole answer, of which `hits` are a part: `NEIGHBOURHOOD` of them, or
        all.
    """
    near = {hit.case.id: hit for hit in (*nearest, *hits)}
    backing = dict(zip(near, agreement([hit.case.label for hit in near.values()]), strict=True))
    return tuple(
        model.calibration.probability(bits, hit.distance, hit.score, backing[hit.case.id])
        if hit.case.label
        else None
        for hit in hits
    )
