"""Write bundles of any architecture with random weights, and load their engines."""

import json
from pathlib import Path

import torch
from torchvision.transforms import Compose

from app.engines.conversion import convert_bundle
from app.engines.engine import Choice, Engine
from app.engines.loader import load_engine
from app.models.artifacts import Artifacts
from app.models.bundle import Bundle, find_bundle
from tests import reference
from tests.helpers import SAMPLES

CLASSES = 5


def write_model(folder: Path, weights: dict[str, torch.Tensor], config: dict) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "model.pth")
    names = {str(index): f"class {index}" for index in range(CLASSES)}
    (folder / "class_name.json").write_text(json.dumps(names))
    (folder / "model.json").write_text(json.dumps(config))
    return find_bundle(folder)


def load(bundle: Bundle, tmp_path: Path, engine: str) -> Engine:
    artifacts = Artifacts(bundle, tmp_path / "cache")
    if engine == "openvino":
        convert_bundle(artifacts)
    return load_engine(Choice(engine, "fp32", "cpu", 2, 3), artifacts)


def sample_images(prepare: Compose) -> torch.Tensor:
    images = [reference.as_rgb(path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))]
    return torch.stack([prepare(image) for image in images])


def with_grain(images: torch.Tensor) -> torch.Tensor:
    """Return images with noise, as photographs have.

    A network whose batch norms have seen only smooth images amplifies all others without end.
    """
    return images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
