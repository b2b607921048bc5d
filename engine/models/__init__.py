"""Models: providers' clients, the catalogue, the decoder of response events, the scripted model.

Importing this package loads nothing of it; names are resolved on first use, and the HTTP library by the first request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.models.base import Model as Model
    from engine.models.base import ModelRequest as ModelRequest
    from engine.models.base import ResponseStream as ResponseStream
    from engine.models.catalogue import ModelInfo as ModelInfo
    from engine.models.catalogue import find_model as find_model
    from engine.models.client import ResponsesClient as ResponsesClient
    from engine.models.opening import ModelPool as ModelPool
    from engine.models.opening import open_model as open_model
    from engine.models.opening import open_models as open_models
    from engine.models.script_requests import ScriptedRequest as ScriptedRequest
    from engine.models.scripted import ScriptedModel as ScriptedModel
    from engine.models.scripts import Script as Script
    from engine.models.scripts import ScriptedResponse as ScriptedResponse
    from engine.models.serving import ScriptServer as ScriptServer
    from engine.models.serving import serve_script as serve_script

_HOMES = {
    "Model": "base",
    "ModelInfo": "catalogue",
    "ModelPool": "opening",
    "ModelRequest": "base",
    "ResponseStream": "base",
    "ResponsesClient": "client",
    "Script": "scripts",
    "ScriptServer": "serving",
    "ScriptedModel": "scripted",
    "ScriptedRequest": "script_requests",
    "ScriptedResponse": "scripts",
    "find_model": "catalogue",
    "open_model": "opening",
    "open_models": "opening",
    "serve_script": "serving",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
