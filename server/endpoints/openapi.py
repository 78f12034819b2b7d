"""The OpenAPI document of the server: what each route takes, gives and refuses.

Schemas of bodies come from the records that the codecs use; only tensors, whose data those records keep
as bytes, are written out here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from server.endpoints.forgetting import ForgetRequest, Forgotten
from server.endpoints.routes import PromoteRequest, RollbackRequest, RouteChange, RouteRevision, SharesRequest
from server.protection.tokens import Scope
from server.protocol.datatypes import DATATYPES
from server.protocol.messages import (
    ErrorBody,
    FeedbackItem,
    IndexEntry,
    IndexRequest,
    InstancesRequest,
    InstancesResponse,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    RepositoryRequest,
    RowsRequest,
    RowsResponse,
    ServerMetadata,
)
from server.routing.document import Route

Schema = dict[str, Any]

REASONS: Mapping[int, str] = {
    400: "The request contradicts the protocol or the model's signature; the sentence says where.",
    401: "No token, or one that is not known.",
    403: "The token is not for this; or admin routes of an exposed server without tokens.",
    404: "No such model or version.",
    408: "Headers or body did not arrive in time.",
    409: "It contradicts the present state: a route names the version, or the repository is watched.",
    412: "The route has another revision by now, which the entity tag names.",
    413: "The body is larger than a limit.",
    415: "An unknown content encoding.",
    422: "The route contradicts itself, or names versions that cannot answer; every fault is named.",
    428: "The header If-Match is missing.",
    429: "The token has used up its requests for now.",
    431: "Target and headers are larger than the limit.",
    500: "A fault of the server's own, or a model that failed on valid rows.",
    503: "Not now: overloaded, not ready, or the event log takes no event.",
    504: "The request's deadline passed before the work began; nothing was executed.",
}
_ANY = (400, 408, 431, 503)  # what HTTP itself may end in, and a stop of the server
_SCORES = (401, 403, 404, 413, 415, 429, 500, 504)
_BODY = (413, 415)
_CHANGES_ROUTE = (404, 409, 412, 413, 415, 422, 428)
_RETRY = {"description": "Whole seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
_ROW = {"carrier": "UA", "distance": 1400, "hour": 17}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. ``scope`` is the token's, None for any, "open" for none at all."""

    summary: str
    tag: str
    gives: Schema
    detail: str = ""
    scope: Scope | Literal["open"] | None = None
    status: int = 200
    takes: Schema | None = None
    example: Any = None
    optional_body: bool = False
    errors: tuple[int, ...] = ()
    content: str = "application/json"
    binary: bool = False
    lines: bool = False
    tagged: bool = False
    toml: bool = False
    parameters: tuple[str, ...] = ()


def openapi_document(server_version: str) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of a server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tiltyard",
            "version": server_version,
            "description": "Scores rows with ONNX models over the Open Inference Protocol V2, and logs every answer.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": {path: _path(path, methods) for path, methods in _OPERATIONS.items()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `tiltyard token`; needed where the server was started with --tokens.",
                }
            },
        },
    }


def _path(path: str, methods: Mapping[str, Operation]) -> dict[str, Any]:
    names = [part[1 : part.index("}")] for part in path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": _EXAMPLES[name]}
        for name in names
    ]
    described: dict[str, Any] = {method: _operation(method, path, each) for method, each in methods.items()}
    return {**described, "parameters": parameters} if parameters else described


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    scope = operation.scope
    guard = () if scope == "open" else (401,) if scope is None else (401, 403, 429)
    refused = sorted({*_ANY, *guard, *operation.errors})
    found: dict[str, Any] = {
        "operationId": f"{method}_{path.strip('/').replace('/', '_').translate(str.maketrans('', '', '{}:.'))}"
        or method,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            str(operation.status): _answer(operation),
            **{str(status): _refusal(status) for status in refused},
        },
    }
    if operation.detail:
        found["description"] = operation.detail
    if scope != "open":
        # An empty requirement: without a file of tokens nobody needs one. OpenAPI has scopes for bearer since 3.1.
        found["security"] = [{}, {"token": [scope] if scope else []}]
    if operation.takes is not None:
        found["requestBody"] = _body(operation)
    if operation.tag == "Scoring":
        found["parameters"] = _SCORING_HEADERS
    elif operation.parameters:
        found["parameters"] = [{"name": name, **_QUERY_AND_HEADERS[name]} for name in operation.parameters]
    return found


def _answer(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {operation.content: {"schema": operation.gives}}
    headers: dict[str, Any] = {}
    if operation.binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        headers = {"Inference-Header-Content-Length": {**_JSON_LENGTH, "required": False}}
    if operation.tagged:
        headers["ETag"] = _ETAG
    answer: dict[str, Any] = {"description": "Done." if operation.status == 200 else "Accepted.", "content": content}
    return {**answer, "headers": headers} if headers else answer


def _refusal(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": REASONS[status],
        "content": {"application/json": {"schema": _ref("ErrorBody")}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": _RETRY}
    if status == 412:
        answer["headers"] = {"ETag": _ETAG}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}}
    return answer


def _body(operation: Operation) -> dict[str, Any]:
    json_content: dict[str, Any] = {"schema": operation.takes}
    if operation.example is not None:
        json_content["example"] = operation.example
    content = {"application/json": json_content}
    if operation.binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    if operation.toml:
        content["application/toml"] = {"schema": {"type": "string"}}
    if operation.lines:
        content["application/x-ndjson"] = {"schema": {"type": "string"}}
    return {"required": not operation.optional_body, "content": content}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Schema]:
    records = [
        ErrorBody,
        FeedbackItem,
        ForgetRequest,
        Forgotten,
        IndexEntry,
        IndexRequest,
        InstancesRequest,
        InstancesResponse,
        ModelConfig,
        ModelMetadata,
        ModelStatistics,
        PromoteRequest,
        RepositoryRequest,
        RollbackRequest,
        Route,
        RouteChange,
        RouteRevision,
        RowsRequest,
        RowsResponse,
        ServerMetadata,
        SharesRequest,
    ]
    _, found = msgspec.json.schema_components(records, ref_template="#/components/schemas/{name}")
    return {**found, **_TENSOR_SCHEMAS}


_PARAMETERS = {"type": ["object", "null"], "description": "Unknown members are passed over."}
_DATA = {
    "description": "Flat or nested, row-major; null is a missing value where the model knows them.",
    "type": "array",
    "items": {"type": ["boolean", "number", "string", "null", "array"]},
}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_TENSOR_SCHEMAS: dict[str, Schema] = {
    "InputTensor": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": _SHAPE,
            "datatype": _DATATYPE,
            "parameters": {
                **_PARAMETERS,
                "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
            },
            "data": {**_DATA, "type": ["array", "null"]},
        },
    },
    "OutputTensor": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": _SHAPE,
            "datatype": _DATATYPE,
            "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
            "data": _DATA,
        },
    },
    "RequestedOutput": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "parameters": {**_PARAMETERS, "properties": {"binary_data": {"type": ["boolean", "null"]}}},
        },
    },
    "InferenceRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "description": "Echoed, and the key of labels; made up without one."},
            "parameters": {
                **_PARAMETERS,
                "properties": {
                    "timeout": {"type": ["integer", "null"], "minimum": 1, "description": "Microseconds."},
                    "binary_data_output": {"type": ["boolean", "null"]},
                },
            },
            "inputs": {"type": "array", "items": _ref("InputTensor")},
            "outputs": {"type": ["array", "null"], "items": _ref("RequestedOutput")},
        },
    },
    "InferenceResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _ref("OutputTensor")},
        },
    },
}

_JSON_LENGTH = {
    "description": "How many bytes of the body are JSON; raw tensors follow. 0: the body is one raw tensor.",
    "schema": {"type": "integer", "minimum": 0},
}
_SCORING_HEADERS = [
    {"name": "X-Request-Timeout-Ms", "in": "header", "schema": {"type": "integer", "minimum": 1}},
    {"name": "Inference-Header-Content-Length", "in": "header", **_JSON_LENGTH},
]
_ETAG = {"description": "The revision that holds, in quotes.", "schema": {"type": "string"}}
_QUERY_AND_HEADERS: Mapping[str, dict[str, Any]] = {
    "If-Match": {
        "in": "header",
        "description": "The revision to change, in quotes, or * for whichever holds.",
        "schema": {"type": "string", "pattern": r'^("[0-9]{1,15}"|\*)$'},
        "required": True,
        "example": '"7"',
    },
    "If-None-Match": {
        "in": "header",
        "description": "A revision that is known already, in quotes: 304 while it holds.",
        "schema": {"type": "string"},
    },
    "dry_run": {
        "in": "query",
        "description": "Say what would change, and change nothing.",
        "schema": {"type": "boolean", "default": False},
    },
    "reason": {"in": "query", "description": "Kept in the history.", "schema": {"type": "string", "maxLength": 2000}},
    "limit": {
        "in": "query",
        "description": "How many revisions at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10000, "default": 1000},
    },
}
_EXAMPLES = {"model": "flight-delay", "version": "1", "verb": "explain"}
_TAGS = {
    "Scoring": "Ask a model.",
    "Labels": "Tell what came true.",
    "Models": "What is served, and how it is called.",
    "Routes": "Who shares a model's traffic: champion, splits, shadows.",
    "Log": "What it holds on somebody.",
    "Repository": "What there is; loading and unloading it.",
    "Health": "Probes, metrics, this document.",
}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


_READY = _object(ready={"type": "boolean"})
_FLIGHT = {
    "inputs": [
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
        {"name": "distance", "shape": [1], "datatype": "FP32", "data": [1400]},
    ]
}
_INFER = Operation(
    summary="Score tensors",
    detail="The Open Inference Protocol V2. Without a version the model's route decides who answers.",
    tag="Scoring",
    scope="infer",
    takes=_ref("InferenceRequest"),
    example=_FLIGHT,
    gives=_ref("InferenceResponse"),
    errors=_SCORES,
    binary=True,
)
_METADATA = Operation(summary="Describe a model", tag="Models", gives=_ref("ModelMetadata"), errors=(404,))
_MODEL_READY = Operation(summary="Ask whether a model is ready", tag="Models", gives=_READY, errors=(404,))
_CONFIG = Operation(summary="Show a model's configuration", tag="Models", gives=_ref("ModelConfig"), errors=(404,))
_STATISTICS = Operation(
    summary="Show what versions have done",
    tag="Models",
    gives=_object(model_stats={"type": "array", "items": _ref("ModelStatistics")}),
    errors=(404,),
)
_CHANGE = Operation(
    summary="Load a model",
    detail="Returns once all processes serve it. Without a version: everything new or changed in the store.",
    tag="Repository",
    scope="admin",
    takes=_ref("RepositoryRequest"),
    example={"parameters": {"version": "2"}},
    optional_body=True,
    gives={"type": "object"},
    errors=(404, 409, *_BODY),
)


def _change_of_route(summary: str, takes: str, example: Any, detail: str, *parameters: str) -> Operation:
    return Operation(
        summary=summary,
        detail=detail,
        tag="Routes",
        scope="admin",
        takes=_ref(takes),
        example=example,
        gives=_ref("RouteChange"),
        errors=_CHANGES_ROUTE,
        tagged=True,
        parameters=("If-Match", "dry_run", *parameters),
        toml="reason" in parameters,
    )


_SERVER = Operation(summary="Describe the server", tag="Models", gives=_ref("ServerMetadata"))

# By path and method, as app.py routes them; a test holds the two against each other.
_OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "/v2/models/{model}/infer": {"post": _INFER},
    "/v2/models/{model}/versions/{version}/infer": {"post": _INFER},
    "/v1/models/{model}/predict": {
        "post": Operation(
            summary="Score rows of named values",
            detail="An absent column is a missing value, where the model knows them.",
            tag="Scoring",
            scope="infer",
            takes=_ref("RowsRequest"),
            example={"id": "r1", "rows": [_ROW]},
            gives=_ref("RowsResponse"),
            errors=_SCORES,
        )
    },
    "/v1/models/{model}:predict": {
        "post": Operation(
            summary="Score instances",
            detail="As clients of KServe's V1 protocol and of TensorFlow Serving send them.",
            tag="Scoring",
            scope="infer",
            takes=_ref("InstancesRequest"),
            example={"instances": [_ROW]},
            gives=_ref("InstancesResponse"),
            errors=_SCORES,
        )
    },
    "/v1/feedback": {
        "post": Operation(
            summary="Send labels",
            detail='One label, `{"feedback": [...]}`, or one a line. Answered once all are on disk; a malformed one '
            "refuses them all.",
            tag="Labels",
            scope="feedback",
            status=202,
            takes={
                "anyOf": [
                    _ref("FeedbackItem"),
                    _object(feedback={"type": "array", "items": _ref("FeedbackItem")}),
                ]
            },
            example={"id": "r1", "label": True},
            gives=_object(accepted={"type": "integer"}),
            errors=_BODY,
            lines=True,
        )
    },
    "/v2": {"get": _SERVER},
    "/v2/models": {
        "get": Operation(
            summary="List the models",
            tag="Models",
            gives=_object(models={"type": "array", "items": {"type": "string"}}),
        )
    },
    "/v2/models/stats": {"get": _STATISTICS},
    "/v2/models/{model}": {"get": _METADATA},
    "/v2/models/{model}/ready": {"get": _MODEL_READY},
    "/v2/models/{model}/config": {"get": _CONFIG},
    "/v2/models/{model}/stats": {"get": _STATISTICS},
    "/v2/models/{model}/versions/{version}": {"get": _METADATA},
    "/v2/models/{model}/versions/{version}/ready": {"get": _MODEL_READY},
    "/v2/models/{model}/versions/{version}/config": {"get": _CONFIG},
    "/v2/models/{model}/versions/{version}/stats": {"get": _STATISTICS},
    "/v1/models/{model}": {
        "get": Operation(
            summary="Ask whether a model is ready, as KServe's V1 protocol does",
            tag="Models",
            gives=_object(name={"type": "string"}, ready={"type": "boolean"}),
            errors=(404,),
        )
    },
    "/v1/models/{model}/route": {
        "get": Operation(
            summary="Show the route that is obeyed",
            detail="Revision 0 is that of a model without a document: its newest version answers everything.",
            tag="Routes",
            gives=_ref("Route"),
            errors=(404,),
            tagged=True,
            parameters=("If-None-Match",),
        ),
        "put": _change_of_route(
            "Replace the route",
            "Route",
            {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": 0.05}]},
            "A whole document. Without ranges its splits keep the units they have, as far as their shares allow; the "
            "server numbers it.",
            "reason",
        ),
    },
    "/v1/models/{model}/route/history": {
        "get": Operation(
            summary="List the route's revisions, newest first",
            tag="Routes",
            gives={"type": "array", "items": _ref("RouteRevision")},
            errors=(404,),
            parameters=("limit",),
        )
    },
    "/v1/models/{model}/shares": {
        "post": _change_of_route(
            "Change shares",
            "SharesRequest",
            {"shares": {"2": 0.1}, "reason": "first hour without an error"},
            "Units move between the challengers named and the champion only.",
        )
    },
    "/v1/models/{model}/promote": {
        "post": _change_of_route(
            "Promote a version to champion",
            "PromoteRequest",
            {"version": "2"},
            "What it answered as a challenger it goes on answering; the former champion leaves the route.",
        )
    },
    "/v1/models/{model}/rollback": {
        "post": _change_of_route(
            "Return to an earlier route",
            "RollbackRequest",
            {"revision": 1},
            "With its very ranges, as a new revision.",
        )
    },
    "/v1/log/forget": {
        "post": Operation(
            summary="Forget requests",
            detail="What the log holds on them goes for good; their events stay in place and say so. The whole log is "
            "read for it, which may take long.",
            tag="Log",
            scope="admin",
            takes=_ref("ForgetRequest"),
            example={"ids": ["a request that nobody made"], "reason": "asked by the customer"},
            gives=_ref("Forgotten"),
            errors=(503, *_BODY),
            parameters=("dry_run",),
        )
    },
    "/v2/repository/index": {
        "post": Operation(
            summary="List every version with its state",
            detail="And why one does not serve: in a watched repository, what its copy still lacks.",
            tag="Repository",
            scope="admin",
            takes=_ref("IndexRequest"),
            example={"ready": True},
            optional_body=True,
            gives={"type": "array", "items": _ref("IndexEntry")},
            errors=_BODY,
        )
    },
    "/v2/repository/models/{model}/load": {"post": _CHANGE},
    "/v2/repository/models/{model}/unload": {
        "post": Operation(
            summary="Unload a model",
            detail="Returns once no process serves it. What a route document names stays.",
            tag="Repository",
            scope="admin",
            takes=_ref("RepositoryRequest"),
            example={"parameters": {"version": "1"}},
            optional_body=True,
            gives={"type": "object"},
            errors=(404, 409, *_BODY),
        )
    },
    "/": {
        "get": Operation(
            summary="Ask for life, as KServe's V1 protocol does",
            tag="Health",
            scope="open",
            gives=_object(status={"type": "string"}),
        )
    },
    "/v2/health/live": {
        "get": Operation(summary="Ask for life", tag="Health", scope="open", gives=_object(live={"type": "boolean"}))
    },
    "/v2/health/ready": {
        "get": Operation(
            summary="Ask whether every model answers and events are logged", tag="Health", scope="open", gives=_READY
        )
    },
    "/health": {
        "get": Operation(
            summary="Show the same in detail", tag="Health", scope="open", gives=_object(status={"type": "string"})
        )
    },
    "/metrics": {
        "get": Operation(
            summary="Show Prometheus's metrics",
            tag="Health",
            scope="metrics",
            gives={"type": "string"},
            content="text/plain",
        )
    },
    "/openapi.json": {
        "get": Operation(summary="Get this document", tag="Health", scope="open", gives={"type": "object"})
    },
    "/docs": {
        "get": Operation(
            summary="Read this document", tag="Health", scope="open", gives={"type": "string"}, content="text/html"
        )
    },
}
