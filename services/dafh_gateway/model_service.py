"""`ModelService`: what encodes."""

from __future__ import annotations

from dafh.errors import NotFound, Reason
from dafh.v1 import model_pb2, model_service_pb2
from dafh_gateway import messages
from dafh_gateway.backend import Backend
from dafh_gateway.call import Call
from dafh_gateway.names import parse_model, parse_page_size
from dafh_gateway.pages import ListPage, PageTokens, fingerprint


class ModelService:
    """Describes the versions of the model that Triton knows."""

    def __init__(self, backend: Backend, pages: PageTokens) -> None:
        self._backend = backend
        self._pages = pages

    def GetModel(self, request: model_service_pb2.GetModelRequest, call: Call) -> model_pb2.Model:
        """Return one model version."""
        version = parse_model(request.name)
        for model in self._models(call):
            if model.version == version:
                return model
        raise NotFound(
            Reason.MODEL_NOT_FOUND, f"There is no model version {version}.", subject="name"
        )

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, call: Call
    ) -> model_service_pb2.ListModelsResponse:
        """Return the versions, the newest first."""
        size, mark = (
            parse_page_size(request.page_size),
            fingerprint(request, "page_size", "page_token"),
        )
        models = self._models(call)
        if request.page_token:
            page = self._pages.read(ListPage, request.page_token, call.tenant, mark)
            models = [model for model in models if model.version < int(page.after)]
        response = model_service_pb2.ListModelsResponse(models=models[:size])
        if len(models) > size:
            last = str(models[size - 1].version)
            response.next_page_token = self._pages.write(
                ListPage(tenant=call.tenant, request=mark, after=last)
            )
        call.count = len(response.models)
        return response

    def _models(self, call: Call) -> list[model_pb2.Model]:
        return [
            messages.model_message(
                model, loaded=loaded, preferred=model.version == self._backend.preferred
            )
            for model, loaded in self._backend.models(call.deadline)
        ]
