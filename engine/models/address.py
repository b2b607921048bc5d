"""Where requests to a provider go (config.md 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo

__all__ = ["endpoint_url"]

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
BACKEND_BASE_URL: Final = "https://chatgpt.com/backend-api/codex"


def endpoint_url(provider: ProviderInfo, path: str = "responses", *, backend: bool = False) -> str:
    """Where requests go to, with the provider's query parameters; `backend`: by a ChatGPT-type login.

    Raises `ConfigError`.
    """
    base = provider.base_url or (BACKEND_BASE_URL if backend else DEFAULT_BASE_URL)
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bad port, an unfinished IPv6 address
        usable = False
    if not usable:
        raise ConfigError(
            f"`{base}` is no URL that starts with http:// or https://", key=f"model_providers.{provider.id}.base_url"
        )
    query = "&".join(filter(None, (parts.query, urlencode(provider.query_params))))
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{path}", query, ""))
