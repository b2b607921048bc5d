"""The steps of a start that exist today (session.md 2.2-2.7); services that come later register theirs in `GRAPH`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import trio

from engine.errors import InvalidRequest, StoreError
from engine.models.catalogue import find_model
from engine.protocol.events import DeprecationNotice, SessionConfigured, Warning
from engine.protocol.ids import SessionId, new_thread_id
from engine.protocol.rollout_items import BaseInstructions, EventLine, SessionMeta
from engine.session.configuration import SessionConfiguration
from engine.session.core import SessionCore, absolute_folder
from engine.session.delivery import EventHub
from engine.session.startup import Start, Step, check_graph

if TYPE_CHECKING:
    from engine.thread_store.interface import StoredThread

__all__ = ["GRAPH"]

ON_FAILURE_DEPRECATED = (
    "`on-failure` approval policy is deprecated and will be removed in a future release. "
    "Use `on-request` for interactive approvals or `never` for non-interactive runs."
)
