"""TensorFlow Serving's REST API and KServe's V1: the paths that ``web/tfserving.py`` knows by patterns."""

from __future__ import annotations

from app.errors import MalformedRequest
from app.web.input.client import ROUTING_KEY
from app.web.input.uploads import JSON
from app.web.openapi.errors import FINDING_A_MODEL, PREDICTING, READING_A_BODY, READING_A_PICTURE
from app.web.openapi.headers import MODEL
from app.web.openapi.operations import Group, Operation
from app.web.tfserving.schema import (
    Classifications,
    Examples,
    FileColumns,
    FileRows,
    LoneFile,
    ModelList,
    ModelMetadata,
    ModelStatus,
    NamedRows,
    Outputs,
    PixelColumns,
    PixelRows,
    Predictions,
)

# Each function of a model is also one of a version, and of what a label points to.
TARGETS = {
    "": ("", ""),
    "_version": ("/versions/{version}", " of a version"),
    "_label": ("/labels/{label}", " of what a label points to"),
}
TAKEN = (FileRows, NamedRows, PixelRows, FileColumns, LoneFile, PixelColumns)
PREDICT = """\
Answers each picture of `instances` with a row of `predictions`, and those of `inputs` with `outputs`: its
scores in the order of the classes, or what `signature_name` gives. The body may be compressed
(`Content-Encoding: gzip` or `deflate`), and its content type does not matter.
"""
CLASSIFY = """\
Answers each picture of `examples` with all labels and their scores, the highest first. The body may be
compressed (`Content-Encoding: gzip` or `deflate`), and its content type does not matter.
"""
STATUS = "Says how the versions of a model stand, the highest first; KServe's and OpenAI's keys are beside it."
METADATA = "Says what a model takes and gives, as TensorFlow's signatures."
LIST = "Lists all models as KServe and OpenAI do; TensorFlow Serving has no such answer."
ABOUT = """\
Clients of TensorFlow Serving, and of KServe's first protocol, work unchanged. These paths know no case, and
whatever else lies under `/v1` is answered 400.
"""


def list_operations() -> list[Operation]:
    """Return the operations of all targets."""
    found = [
        Operation(
            "GET", "/v1/models", "v1_models", "All models", {JSON: ModelList}, description=LIST
        )
    ]
    predicting = {*FINDING_A_MODEL, *PREDICTING, *READING_A_BODY, *READING_A_PICTURE}
    for suffix, (target, words) in TARGETS.items():
        path = f"/v1/models/{{name}}{target}"
        found += [
            Operation(
                "POST",
                f"{path}:predict",
                f"v1_predict{suffix}",
                f"Predict{words}",
                {JSON: (Predictions, Outputs)},
                predicting,
                takes={JSON: TAKEN},
                asks=[ROUTING_KEY],
                tells=MODEL,
                examples="v1_predict",
                description=PREDICT,
            ),
            Operation(
                "POST",
                f"{path}:classify",
                f"v1_classify{suffix}",
                f"Classify{words}",
                {JSON: Classifications},
                predicting,
                takes={JSON: Examples},
                asks=[ROUTING_KEY],
                tells=MODEL,
                examples="v1_classify",
                description=CLASSIFY,
            ),
            Operation(
                "GET",
                path,
                f"v1_status{suffix}",
                f"Status{words}",
                {JSON: ModelStatus},
                {*FINDING_A_MODEL, MalformedRequest},
                examples="v1_status",
                description=STATUS,
            ),
            Operation(
                "GET",
                f"{path}/metadata",
                f"v1_metadata{suffix}",
                f"Metadata{words}",
                {JSON: ModelMetadata},
                {*FINDING_A_MODEL, MalformedRequest},
                tells=MODEL,
                examples="v1_metadata",
                description=METADATA,
            ),
        ]
    return found


GROUP = Group("TensorFlow Serving, KServe V1", ABOUT, list_operations())
