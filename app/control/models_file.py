"""The models file: several models, their versions, labels and shares of the traffic.

It is TensorFlow Serving's model config (config/model_server_config.proto), in its own text form or in
JSON, with one field more: ``traffic``. The field numbers are TensorFlow Serving's; protobuf reads both
forms and names what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)

from app.control.repository import Policy, ServedModel
from app.errors import BundleError, first_line
from app.models.folders import find_models
from app.names import name_problem
from app.settings import Settings

Field = descriptor_pb2.FieldDescriptorProto

# message → (field, number, type, repeated); a type is a scalar of protobuf or another message here
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
MAPS = {"VersionLabelsEntry", "TrafficEntry"}  # maps are lists of entries, nested in their message


def build_message_class() -> type[Any]:
    """Return protobuf's class for a whole models file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="models.proto", package="serving", syntax="proto3"
    )
    messages = {name: file.message_type.add(name=name) for name in SCHEMA if name not in MAPS}
    messages |= {name: messages["ModelConfig"].nested_type.add(name=name) for name in MAPS}
    for name, fields in SCHEMA.items():
        message = messages[name]
        message.options.map_entry = name in MAPS
        for field, number, kind, repeated in fields:
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            added.type = SCALARS.get(kind, Field.TYPE_MESSAGE)
            if kind not in SCALARS:
                inside = "ModelConfig." if kind in MAPS else ""
                added.type_name = f".serving.{inside}{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.ModelServerConfig"))


ModelServerConfig = build_message_class()


@dataclass(frozen=True)
class Wanted:
    """The models to serve.

    Attributes:
        configs: each of them; the first is the default, where nothing else decides that.
        is_named: the operator named the first one, by SERVING_MODEL or a models file.
        skipped: for each folder that was left out, a sentence that says why.
    """

    configs: list[ServedModel]
    is_named: bool
    skipped: tuple[str, ...] = ()


def read_wanted(settings: Settings) -> Wanted:
    """Return the models to serve: those of the models file, the one that SERVING_MODEL names, or all that there are.

    Raises:
        BundleError: there is none; or the file is not as it must be.
    """
    if settings.models_file is not None:
        return Wanted(read_configs(settings), is_named=True)
    found = find_models(settings.models, settings.model)
    policy = Policy.from_text(settings.versions)
    configs = [ServedModel(name, folder, policy) for name, folder in found.folders.items()]
    return Wanted(configs, bool(settings.model), found.skipped)


def read_configs(settings: Settings) -> list[ServedModel]:
    """Return the models to serve, the default first. Raises as ``read_wanted`` does."""
    if settings.models_file is None:
        return read_wanted(settings).configs
    configs = read_models_file(settings.models_file)
    names = [config.name for config in configs]
    if settings.model and settings.model not in names:
        raise BundleError(f"{settings.models_file} names no {settings.model!r}, only {names}")
    return sorted(configs, key=lambda config: config.name != settings.model)


def read_models_file(path: Path) -> list[ServedModel]:
    """Read a models file of either form; relative paths in it count from its folder.

    Raises:
        BundleError: it cannot be read, or says something that cannot be; the text names the place.
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
    configs = [read_config(path, one) for one in message.model_config_list.config]
    names = [config.name for config in configs]
    if not configs:
        raise BundleError(f"{path}: it names no model")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BundleError(f"{path}: {twice[0]!r} is there twice")
    return configs


def read_config(path: Path, message: Any) -> ServedModel:
    """Read one model. Raises BundleError."""
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
    """Return a model's version policy; without one the highest version is served."""
    policy = message.model_version_policy
    if policy.HasField("all"):
        return Policy(latest=0)
    if policy.HasField("specific"):
        return Policy(specific=tuple(policy.specific.versions) or (0,))  # none: no version is meant
    return Policy(latest=policy.latest.num_versions or 1)
