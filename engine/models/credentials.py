"""The key of a provider, looked up when a request needs it (config.md 7 and 15)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from engine.errors import MissingCredential
from engine.records import define

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo

__all__ = ["OTHER_WAYS", "Credentials"]

OPENAI_KEY: Final = "OPENAI_API_KEY"
OTHER_WAYS: Final = (
    "Other ways to run: `--oss` uses a model server on this machine, "
    "`--model-provider scripted --script FILE` answers from a script."
)


@define(eq=False)
class Credentials:
    """Where keys may come from: the environment, a key the host passed in, `auth.json` in the home.

    `token` reads the file on every call that gets that far, so that a login while the engine runs is seen.
    """

    env: Mapping[str, str]
    home: Path | None = None
    api_key: str | None = None

    def needs_file(self, provider: ProviderInfo) -> bool:
        """Whether `token` will look into the home."""
        if provider.env_key or provider.experimental_bearer_token or not provider.requires_openai_auth:
            return False
        return not self._openai_key()

    def token(self, provider: ProviderInfo) -> str | None:
        """The bearer token for `provider`; `None` if it takes none. Raises `MissingCredential`."""
        if provider.env_key:
            return self._from_environment(provider, provider.env_key)
        if provider.experimental_bearer_token:
            return provider.experimental_bearer_token
        if not provider.requires_openai_auth:
            return None
        found = self._openai_key()
        if found:
            return found
        stored, login = self._stored()
        if stored:
            return stored
        hint = f" ({login})" if login else ""
        raise MissingCredential(
            f"No API key for the provider `{provider.id}`: set the environment variable {OPENAI_KEY}, "
            f"or store a key in auth.json{hint}. {OTHER_WAYS}",
            variable=OPENAI_KEY,
        )

    def _openai_key(self) -> str | None:
        return (self.api_key or "").strip() or self.env.get(OPENAI_KEY, "").strip() or None

    def _from_environment(self, provider: ProviderInfo, name: str) -> str:
        value = self.env.get(name, "").strip()
        if value:
            return value
        instructions = f" {provider.env_key_instructions}" if provider.env_key_instructions else ""
        raise MissingCredential(f"Missing environment variable: `{name}`.{instructions}", variable=name)

    def _stored(self) -> tuple[str | None, str | None]:
        """The key in `auth.json`, and what to say about a file that has none."""
        if self.home is None:
            return None, None
        path = self.home / "auth.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None, None
        except OSError as exc:
            return None, f"{path} can't be read: {exc.strerror}"
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None, f"{path} is not valid JSON"
        if not isinstance(content, dict):
            return None, f"{path} holds no JSON object"
        key = content.get(OPENAI_KEY)
        if isinstance(key, str) and key.strip():
            return key.strip(), None
        if content.get("tokens"):
            return None, f"{path} holds a ChatGPT login, which this version can't use yet"
        return None, None
