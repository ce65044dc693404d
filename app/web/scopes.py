"""The scope of every route: what an API key must have, unless ``SERVING_PUBLIC`` has it.

A route without a row is closed to everybody. Paths that are no route need no key: they are answered 404 or 405.
"""

from __future__ import annotations

from app.settings import Settings

STATUS = "status"  # open to everybody: probes of load balancers and containers have no key

# Endpoint (blueprint and view) → scope.
ROUTES = {
    "predict.predict": "predict",
    "heatmap.heatmap": "predict",
    "model_predict.model_predict": "predict",
    "tfserving.predict": "predict",
    "openinference.infer": "predict",
    "page.index": "page",
    "page.file": "page",
    "samples.index": "read",
    "samples.file": "read",
    "tfserving.read": "read",
    "openinference.server_metadata": "read",
    "openinference.models": "read",
    "openinference.model_metadata": "read",
    "openinference.model_ready": "read",
    "openinference.repository_index": "read",
    "openinference.control": "admin",
    "health.health": "read",
    "health.healthz": STATUS,
    "health.readyz": STATUS,  # its details need "read"
    "openinference.live": STATUS,
    "openinference.ready": STATUS,
    "metrics.show_metrics": "metrics",
    "docs.openapi": "docs",
    "docs.show": "docs",
    "docs.asset": "docs",
}

# Endpoint → scope that its JSON needs besides.
JSON_SCOPES = {"page.index": "read"}


def is_public(scope: str, settings: Settings) -> bool:
    """Return whether a scope needs no key."""
    return scope == STATUS or scope in settings.public_scopes
