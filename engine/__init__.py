"""An embeddable session engine for coding agents, on Trio.

    import engine, trio

    async def main():
        async with engine.open_engine() as host, host.session() as session:
            print((await session.run("What does this project do?")).final_message)

    trio.run(main)

Importing the package is cheap: every public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from engine.auth.attestation import AttestationProvider as AttestationProvider
    from engine.auth.errors import LoginError as LoginError
    from engine.auth.manager import ExternalLogin as ExternalLogin
    from engine.auth.manager import ExternalTokens as ExternalTokens
    from engine.auth.manager import Login as Login
    from engine.config.editing import ConfigEdit as ConfigEdit
    from engine.config.layers import Layer as Layer
    from engine.config.layers import LayerStack as LayerStack
    from engine.config.model import Config as Config
    from engine.config.requirements import Requirements as Requirements
    from engine.config.writing import ConfigWriteError as ConfigWriteError
    from engine.config.writing import ConfigWritten as ConfigWritten
    from engine.errors import ConfigError as ConfigError
    from engine.errors import ConflictError as ConflictError
    from engine.errors import ContextWindowExceeded as ContextWindowExceeded
    from engine.errors import EngineClosed as EngineClosed
    from engine.errors import EngineError as EngineError
    from engine.errors import InvalidRequest as InvalidRequest
    from engine.errors import MissingCredential as MissingCredential
    from engine.errors import ModelError as ModelError
    from engine.errors import PatchError as PatchError
    from engine.errors import ProcessError as ProcessError
    from engine.errors import ProtocolError as ProtocolError
    from engine.errors import ScriptError as ScriptError
    from engine.errors import SessionClosed as SessionClosed
    from engine.errors import SessionCrashed as SessionCrashed
    from engine.errors import SessionStartError as SessionStartError
    from engine.errors import StoreError as StoreError
    from engine.errors import StoreUnsupported as StoreUnsupported
    from engine.errors import ThreadNotFound as ThreadNotFound
    from engine.errors import ToolDefinitionError as ToolDefinitionError
    from engine.errors import TurnFailed as TurnFailed
    from engine.errors import TurnInterrupted as TurnInterrupted
    from engine.errors import UnknownProvider as UnknownProvider
    from engine.models.base import Model as Model
    from engine.models.catalogue import ModelInfo as ModelInfo
    from engine.models.scripted import ScriptedModel as ScriptedModel
    from engine.protocol.events import Event as Event
    from engine.protocol.events import EventMsg as EventMsg
    from engine.protocol.ids import ThreadId as ThreadId
    from engine.protocol.ids import TurnId as TurnId
    from engine.protocol.inputs import ImageInput as ImageInput
    from engine.protocol.inputs import LocalImageInput as LocalImageInput
    from engine.protocol.inputs import TextInput as TextInput
    from engine.protocol.items import InputImage as InputImage
    from engine.protocol.items import InputText as InputText
    from engine.protocol.profiles import AdditionalFileSystem as AdditionalFileSystem
    from engine.protocol.profiles import AdditionalNetwork as AdditionalNetwork
    from engine.protocol.profiles import AdditionalPermissionProfile as AdditionalPermissionProfile
    from engine.protocol.settings import CollaborationMode as CollaborationMode
    from engine.protocol.settings import CollaborationSettings as CollaborationSettings
    from engine.protocol.settings import GranularApproval as GranularApproval
    from engine.protocol.settings import TokenUsage as TokenUsage
    from engine.protocol.thread_items import ThreadItem as ThreadItem
    from engine.protocol.thread_items import ThreadTurn as ThreadTurn
    from engine.runtime import Engine as Engine
    from engine.runtime import open_engine as open_engine
    from engine.runtime import open_threads as open_threads
    from engine.session.compaction.hooks import CompactionFacts as CompactionFacts
    from engine.session.compaction.hooks import CompactionHooks as CompactionHooks
    from engine.session.delivery import EventsLost as EventsLost
    from engine.session.delivery import EventStream as EventStream
    from engine.session.environments import EnvironmentSelection as EnvironmentSelection
    from engine.session.environments import RemoteEnvironment as RemoteEnvironment
    from engine.session.session import Session as Session
    from engine.session.session import Turn as Turn
    from engine.session.settings import SessionSettings as SessionSettings
    from engine.session.settings import SettingsUpdate as SettingsUpdate
    from engine.session.settings import TurnResult as TurnResult
    from engine.telemetry.trace import Span as Span
    from engine.telemetry.trace import StartupTrace as StartupTrace
    from engine.thread_store.interface import GitPatch as GitPatch
    from engine.thread_store.interface import ListThreads as ListThreads
    from engine.thread_store.interface import ListTurns as ListTurns
    from engine.thread_store.interface import MetadataPatch as MetadataPatch
    from engine.thread_store.interface import SpawnEdge as SpawnEdge
    from engine.thread_store.interface import StoredHistory as StoredHistory
    from engine.thread_store.interface import StoredThread as StoredThread
    from engine.thread_store.interface import ThreadPage as ThreadPage
    from engine.thread_store.interface import ThreadQuery as ThreadQuery
    from engine.thread_store.interface import ThreadStore as ThreadStore
    from engine.thread_store.interface import TurnPage as TurnPage
    from engine.thread_store.item_pages import ItemPage as ItemPage
    from engine.thread_store.item_pages import ListItems as ListItems
    from engine.thread_store.item_pages import StoredItem as StoredItem
    from engine.thread_store.memory import InMemoryThreadStore as InMemoryThreadStore
    from engine.thread_store.threads import Threads as Threads
    from engine.tools.approvals import ApprovalRequest as ApprovalRequest
    from engine.tools.approvals import Approver as Approver
    from engine.tools.approvals import CommandApproval as CommandApproval
    from engine.tools.approvals import Decision as Decision
    from engine.tools.approvals import ExecPolicyAmendment as ExecPolicyAmendment
    from engine.tools.approvals import PatchApproval as PatchApproval
    from engine.tools.approvals import PermissionGrant as PermissionGrant
    from engine.tools.approvals import PermissionsApproval as PermissionsApproval
    from engine.tools.approvals import ToolApproval as ToolApproval
    from engine.tools.approvals import refuse as refuse
    from engine.tools.functions import Tool as Tool
    from engine.tools.functions import tool as tool

_HOMES = {
    "engine.auth.attestation": "AttestationProvider",
    "engine.auth.errors": "LoginError",
    "engine.auth.manager": "ExternalLogin ExternalTokens Login",
    "engine.config.editing": "ConfigEdit",
    "engine.config.layers": "Layer LayerStack",
    "engine.config.model": "Config",
    "engine.config.requirements": "Requirements",
    "engine.config.writing": "ConfigWriteError ConfigWritten",
    "engine.errors": (
        "ConfigError ConflictError ContextWindowExceeded EngineClosed EngineError InvalidRequest MissingCredential "
        "ModelError PatchError ProcessError ProtocolError ScriptError SessionClosed SessionCrashed SessionStartError "
        "StoreError StoreUnsupported ThreadNotFound ToolDefinitionError TurnFailed TurnInterrupted UnknownProvider"
    ),
    "engine.models.base": "Model",
    "engine.models.catalogue": "ModelInfo",
    "engine.models.scripted": "ScriptedModel",
    "engine.protocol.events": "Event EventMsg",
    "engine.protocol.ids": "ThreadId TurnId",
    "engine.protocol.inputs": "ImageInput LocalImageInput TextInput",
    "engine.protocol.items": "InputImage InputText",
    "engine.protocol.profiles": "AdditionalFileSystem AdditionalNetwork AdditionalPermissionProfile",
    "engine.protocol.settings": "CollaborationMode CollaborationSettings GranularApproval TokenUsage",
    "engine.protocol.thread_items": "ThreadItem ThreadTurn",
    "engine.runtime": "Engine open_engine open_threads",
    "engine.session.compaction.hooks": "CompactionFacts CompactionHooks",
    "engine.session.delivery": "EventStream EventsLost",
    "engine.session.environments": "EnvironmentSelection RemoteEnvironment",
    "engine.session.session": "Session Turn",
    "engine.session.settings": "SessionSettings SettingsUpdate TurnResult",
    "engine.telemetry.trace": "Span StartupTrace",
    "engine.thread_store.interface": (
        "GitPatch ListThreads ListTurns MetadataPatch SpawnEdge StoredHistory StoredThread ThreadPage ThreadQuery "
        "ThreadStore TurnPage"
    ),
    "engine.thread_store.item_pages": "ItemPage ListItems StoredItem",
    "engine.thread_store.memory": "InMemoryThreadStore",
    "engine.thread_store.threads": "Threads",
    "engine.tools.approvals": (
        "ApprovalRequest Approver CommandApproval Decision ExecPolicyAmendment PatchApproval PermissionGrant "
        "PermissionsApproval ToolApproval refuse"
    ),
    "engine.tools.functions": "Tool tool",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
