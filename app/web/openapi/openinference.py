"""The Open Inference Protocol, version 2: the routes of ``web/openinference.py``."""

from __future__ import annotations

from app.errors import MalformedRequest, NotReady
from app.web.input.client import ROUTING_KEY
from app.web.input.uploads import JSON, RAW
from app.web.openapi.errors import FINDING_A_MODEL, PREDICTING, READING_A_BODY, READING_A_PICTURE
from app.web.openapi.headers import MODEL
from app.web.openapi.operations import File, Group, Operation
from app.web.openinference.schema import (
    ImageInference,
    IndexEntry,
    IndexRequest,
    InferenceAnswer,
    ModelNames,
    ModelReady,
    ModelTensors,
    PixelsInference,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from app.web.openinference.tensors import HEADER_LENGTH

# Each function of a model is also one of a version.
TARGETS = {"": ("", ""), "_version": ("/versions/{version}", " of a version")}
INFER = """\
Answers pictures. With `Inference-Header-Content-Length` binary tensors follow the JSON, as in Triton's
extension; a length of 0 makes the whole body one picture. The answer has binary tensors where the request
asks for them. The body may be compressed (`Content-Encoding: gzip` or `deflate`), and its content type does
not matter.
"""
ABOUT = "Clients of Triton, KServe V2 and MLServer work unchanged."


def list_operations() -> list[Operation]:
    """Return the operations of all targets."""
    found = [
        Operation("GET", "/v2", "v2_server", "What this server is", {JSON: ServerMetadata}),
        Operation("GET", "/v2/health/live", "v2_live", "Is it alive?", {JSON: ServerLive}),
        Operation(
            "GET", "/v2/health/ready", "v2_ready", "Is it ready?", {JSON: ServerReady}, {NotReady}
        ),
        Operation("GET", "/v2/models", "v2_models", "All models", {JSON: ModelNames}),
        Operation(
            "POST",
            "/v2/repository/index",
            "v2_index",
            "How all versions stand",
            {JSON: list[IndexEntry]},
            READING_A_BODY,
            takes={JSON: IndexRequest},
            may_be_empty=True,
        ),
        Operation(
            "POST",
            "/v2/repository/models/{name}/{action}",
            "v2_control",
            "Load or unload a model",
            {},
            {MalformedRequest},
        ),
    ]
    for suffix, (target, words) in TARGETS.items():
        path = f"/v2/models/{{name}}{target}"
        found += [
            Operation(
                "POST",
                f"{path}/infer",
                f"v2_infer{suffix}",
                f"Infer{words}",
                {JSON: InferenceAnswer, RAW: File},
                {*FINDING_A_MODEL, *PREDICTING, *READING_A_BODY, *READING_A_PICTURE},
                takes={JSON: (ImageInference, PixelsInference), RAW: File},
                asks=[HEADER_LENGTH, ROUTING_KEY],
                tells=[*MODEL, HEADER_LENGTH],
                examples="v2_infer",
                description=INFER,
            ),
            Operation(
                "GET",
                path,
                f"v2_metadata{suffix}",
                f"Metadata{words}",
                {JSON: ModelTensors},
                FINDING_A_MODEL,
                tells=MODEL,
                examples="v2_metadata",
            ),
            Operation(
                "GET",
                f"{path}/ready",
                f"v2_model_ready{suffix}",
                f"Is a model ready?{words and ' Of a version'}",
                {JSON: ModelReady},
                FINDING_A_MODEL,
                tells=MODEL,
                examples="v2_model_ready",
            ),
        ]
    return found


GROUP = Group("Open Inference Protocol", ABOUT, list_operations())
