"""Triton python-backend model: the version's ONNX file on ONNX Runtime, for servers without a GPU.

Published into each version folder as ``model.py``; runs in the backend's own environment, which has
numpy and onnxruntime and nothing of DAFH.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model; Triton hands it the requests of a batch together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's file; refuse an environment that would corrupt tensors."""
        if int(np.__version__.split(".")[0]) >= 2:
            # With numpy 2 this backend answers READY and then garbles every tensor, silently.
            raise pb_utils.TritonModelException("the backend environment needs numpy < 2")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests as one batch and hand each its rows."""
        images = [
            pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
            for request in requests
        ]
        wanted = {name for request in requests for name in request.requested_output_names()}
        names = [name for name in self.outputs if name in wanted]
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        try:
            values = self.session.run(names, {self.input: batch})
        except RuntimeError as error:  # ONNX Runtime's own errors are RuntimeErrors
            failed = pb_utils.TritonError(f"inference failed: {type(error).__name__}")
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        tensors = dict(zip(names, values, strict=True))
        responses, start = [], 0
        for request, rows in zip(requests, images, strict=True):
            stop = start + len(rows)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor(name, tensors[name][start:stop])
                        for name in request.requested_output_names()
                    ]
                )
            )
            start = stop
        return responses
