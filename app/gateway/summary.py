"""What the gateway lets in, in one sentence for the log."""

from __future__ import annotations

from app.settings import Settings


def summarize(settings: Settings) -> str:
    """Return where nginx listens and whom it answers."""
    clients = join(settings.allow, "all addresses")
    if settings.deny:
        clients += f" but {join(settings.deny)}"
    return (
        f"listening on {join(settings.listen)}; clients: {clients}; hosts: {join(settings.hosts, 'all')}; "
        f"metrics for {join(settings.metrics_from, 'nobody')}; "
        f"trusted proxies: {join(settings.trusted_proxies, 'none')}; "
        f"pages of other origins: {join(settings.cors_origins, 'none')}"
    )


def join(names: tuple[str, ...], empty: str = "") -> str:
    """Return a list as text."""
    return ", ".join(names) or empty
