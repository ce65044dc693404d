"""The model repository: the configured models, their version policies, labels and traffic shares.

The rules are TensorFlow Serving's (its guide "Serving configuration"; file_system_storage_path_source.cc):
a model is a folder of numbered versions, and a policy selects the versions to serve.

    latest:N   the N highest            all   every version            3,4   exactly these

One rule is stricter: a version that cannot be served (half copied, corrupt) does not count. With
``latest:1`` the highest servable version is served, also after a restart.

Several models are configured in a models file: TensorFlow Serving's model config
(config/model_server_config.proto) as text format or JSON, with one more field, ``traffic``. The field
numbers are TensorFlow Serving's; protobuf parses both forms and names unknown fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)

from app.errors import BundleError, first_line
from app.models.folders import find_models
from app.names import name_problem
from app.settings import Settings

Field = descriptor_pb2.FieldDescriptorProto

# message → (field, number, type, repeated); a type is a protobuf scalar or another message of this table
SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    "ModelServerConfig": [("model_config_list", 1, "ModelConfigList", False)],
    "ModelConfigList": [("config", 1, "ModelConfig", True)],
    "ModelConfig": [
        ("name", 1, "string", False),
        ("base_path", 2, "string", False),
        ("model_platform", 4, "string", False),
        ("model_version_policy", 7, "ServableVersionPolicy", False),
        ("version_labels", 8, "VersionLabelsEntry", True),
        ("traffic", 1000, "TrafficEntry", True),
    ],
    "VersionLabelsEntry": [("key", 1, "string", False), ("value", 2, "int64", False)],
    "TrafficEntry": [("key", 1, "string", False), ("value", 2, "uint32", False)],
    "ServableVersionPolicy": [
        ("latest", 100, "Latest", False),
        ("all", 101, "All", False),
        ("specific", 102, "Specific", False),
    ],
    "Latest": [("num_versions", 1, "uint32", False)],
    "All": [],
    "Specific": [("versions", 1, "int64", True)],
}
SCALARS = {"string": Field.TYPE_STRING, "int64": Field.TYPE_INT64, "uint32": Field.TYPE_UINT32}
MAPS = {"VersionLabelsEntry", "TrafficEntry"}  # protobuf encodes a map as nested entry messages


def build_message_class() -> type[Any]:
    """Return the protobuf message class of a models file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="models.proto", package="serving", syntax="proto3"
    )
    messages = {name: file.message_type.add(name=name) for name in SCHEMA if name not in MAPS}
    messages |= {name: messages["ModelConfig"].nested_type.add(name=name) for name in MAPS}
    for name, fields in SCHEMA.items():
        message = messages[name]
        message.options.map_entry = name in MAPS
        for field_name, number, kind, repeated in fields:
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=number, label=label)
            added.type = SCALARS.get(kind, Field.TYPE_MESSAGE)
            if kind not in SCALARS:
                parent = "ModelConfig." if kind in MAPS else ""
                added.type_name = f".serving.{parent}{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.ModelServerConfig"))


ModelServerConfig = build_message_class()


@dataclass(frozen=True)
class Policy:
    """A version policy.

    Attributes:
        latest: the number of highest versions to serve; 0 serves all.
        specific: exactly these versions; ``latest`` is ignored if there are any.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Policy:
        """Parse ``latest:N``, ``all`` or ``3,4``; ``app/setting_parsers.py`` has validated the form."""
        if text == "all":
            return cls(latest=0)
        kind, _, number = text.partition(":")
        if kind == "latest":
            return cls(latest=int(number))
        return cls(specific=tuple(int(part) for part in text.split(",")))

    @property
    def limit(self) -> int | None:
        """The maximum number of versions to serve; None without a limit."""
        return None if self.specific or not self.latest else self.latest

    def candidates(self, versions: Iterable[int]) -> list[int]:
        """Return the versions that match the policy, highest first, to be tried until ``limit`` are servable."""
        existing = set(versions)
        return sorted(existing.intersection(self.specific or existing), reverse=True)


@dataclass(frozen=True)
class ServedModel:
    """A model in the configured repository.

    Attributes:
        name: the name in requests.
        folder: the folder of its versions.
        policy: selects the versions to serve.
        labels: label → version.
        traffic: label or version → share of the requests that name neither; empty: the highest gets all.
    """

    name: str
    folder: Path
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)
    traffic: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Repository:
    """The models to serve.

    Attributes:
        models: never empty; the first is the default unless a running server has another one already.
        is_default_set: the operator chose the default, by SERVING_MODEL or the order of a models file.
        skipped: a message for each folder that was left out.
    """

    models: list[ServedModel]
    is_default_set: bool
    skipped: tuple[str, ...] = ()


def read_repository(settings: Settings) -> Repository:
    """Return the models of the models file, the one named by SERVING_MODEL, or all in the models folder.

    Raises:
        BundleError: there is no model, or the models file is invalid.
    """
    if settings.models_file is None:
        model_folders = find_models(settings.models, settings.model)
        policy = Policy.from_text(settings.versions)
        models = [
            ServedModel(name, folder, policy) for name, folder in model_folders.folders.items()
        ]
        return Repository(models, bool(settings.model), model_folders.skipped)
    models = read_models_file(settings.models_file)
    names = [model.name for model in models]
    if settings.model and settings.model not in names:
        raise BundleError(f"{settings.models_file} names no {settings.model!r}, only {names}")
    models.sort(key=lambda model: model.name != settings.model)
    return Repository(models, is_default_set=True)


def read_models_file(path: Path) -> list[ServedModel]:
    """Parse a models file of either form; relative paths are resolved against its folder.

    Raises:
        BundleError: the file is unreadable or invalid; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        parse = json_format.Parse if text.lstrip().startswith("{") else text_format.Parse
        message = parse(text, ModelServerConfig())
    except (
        OSError,
        ValueError,
        RecursionError,
        json_format.ParseError,
        text_format.ParseError,
    ) as error:
        raise BundleError(f"{path}: {first_line(error)}") from error
    models = [read_model(path, config) for config in message.model_config_list.config]
    names = [model.name for model in models]
    if not models:
        raise BundleError(f"{path}: it names no model")
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise BundleError(f"{path}: {duplicates[0]!r} is there twice")
    return models


def read_model(path: Path, message: Any) -> ServedModel:
    """Validate a ``ModelConfig`` message. Raises BundleError."""
    where = f"{path}: model {message.name!r}"
    if not message.name or not message.base_path:
        raise BundleError(f"{where}: name and base_path are needed")
    if problem := name_problem(message.name):
        raise BundleError(f"{where}: the name {problem}")
    if "://" in message.base_path:
        raise BundleError(f"{where}: base_path {message.base_path!r} is no folder of this machine")
    labels, traffic = dict(message.version_labels), dict(message.traffic)
    for label in labels:
        if not label.isidentifier():
            raise BundleError(
                f"{where}: the label {label!r} is not made of letters, digits and '_'"
            )
    for target in traffic:
        if target not in labels and not target.isdecimal():
            raise BundleError(
                f"{where}: traffic to {target!r}, which is neither a label nor a number"
            )
    if traffic and not sum(traffic.values()):
        raise BundleError(f"{where}: the shares of its traffic are all 0")
    return ServedModel(
        message.name, path.parent / message.base_path, read_policy(message), labels, traffic
    )


def read_policy(message: Any) -> Policy:
    """Return a model's version policy; the default serves the highest version."""
    policy = message.model_version_policy
    if policy.HasField("all"):
        return Policy(latest=0)
    if policy.HasField("specific"):
        return Policy(specific=tuple(policy.specific.versions) or (0,))  # an empty list serves none
    return Policy(latest=policy.latest.num_versions or 1)
