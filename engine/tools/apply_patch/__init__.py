"""The patch tool: parse, verify, apply, recognise in shell calls, and diff what a turn did (tools.md 2).

Nothing here starts a task, a thread or a process. Whatever takes a `FileSystem` blocks; call it in a worker thread.
"""

from __future__ import annotations

from engine.tools.apply_patch.applying import PatchResult as PatchResult
from engine.tools.apply_patch.applying import apply_patch as apply_patch
from engine.tools.apply_patch.changes import AddChange as AddChange
from engine.tools.apply_patch.changes import AppliedAdd as AppliedAdd
from engine.tools.apply_patch.changes import AppliedChange as AppliedChange
from engine.tools.apply_patch.changes import AppliedDelete as AppliedDelete
from engine.tools.apply_patch.changes import AppliedUpdate as AppliedUpdate
from engine.tools.apply_patch.changes import DeleteChange as DeleteChange
from engine.tools.apply_patch.changes import FileChange as FileChange
from engine.tools.apply_patch.changes import PatchDelta as PatchDelta
from engine.tools.apply_patch.changes import UpdateChange as UpdateChange
from engine.tools.apply_patch.changes import changes_to_wire as changes_to_wire
from engine.tools.apply_patch.diffs import unified_diff as unified_diff
from engine.tools.apply_patch.errors import ApplyPatchError as ApplyPatchError
from engine.tools.apply_patch.errors import ContextNotFound as ContextNotFound
from engine.tools.apply_patch.errors import DeleteFailed as DeleteFailed
from engine.tools.apply_patch.errors import InvalidHunk as InvalidHunk
from engine.tools.apply_patch.errors import InvalidPatch as InvalidPatch
from engine.tools.apply_patch.errors import InvalidPath as InvalidPath
from engine.tools.apply_patch.errors import LinesNotFound as LinesNotFound
from engine.tools.apply_patch.errors import NoHunks as NoHunks
from engine.tools.apply_patch.errors import NotAFile as NotAFile
from engine.tools.apply_patch.errors import ReadFailed as ReadFailed
from engine.tools.apply_patch.errors import UpdateReadFailed as UpdateReadFailed
from engine.tools.apply_patch.errors import WriteFailed as WriteFailed
from engine.tools.apply_patch.filesystem import FileKind as FileKind
from engine.tools.apply_patch.filesystem import FileSystem as FileSystem
from engine.tools.apply_patch.filesystem import MemoryFileSystem as MemoryFileSystem
from engine.tools.apply_patch.filesystem import PathStatus as PathStatus
from engine.tools.apply_patch.filesystem import RealFileSystem as RealFileSystem
from engine.tools.apply_patch.grammar import TOOL_DESCRIPTION as TOOL_DESCRIPTION
from engine.tools.apply_patch.grammar import TOOL_NAME as TOOL_NAME
from engine.tools.apply_patch.grammar import patch_grammar as patch_grammar
from engine.tools.apply_patch.parser import parse_patch as parse_patch
from engine.tools.apply_patch.patch import AddFile as AddFile
from engine.tools.apply_patch.patch import Chunk as Chunk
from engine.tools.apply_patch.patch import ChunkLine as ChunkLine
from engine.tools.apply_patch.patch import DeleteFile as DeleteFile
from engine.tools.apply_patch.patch import Hunk as Hunk
from engine.tools.apply_patch.patch import LineKind as LineKind
from engine.tools.apply_patch.patch import Patch as Patch
from engine.tools.apply_patch.patch import UpdateFile as UpdateFile
from engine.tools.apply_patch.recognition import Intercepted as Intercepted
from engine.tools.apply_patch.recognition import ModelError as ModelError
from engine.tools.apply_patch.recognition import Ordinary as Ordinary
from engine.tools.apply_patch.recognition import Recognition as Recognition
from engine.tools.apply_patch.recognition import recognise as recognise
from engine.tools.apply_patch.result import model_result as model_result
from engine.tools.apply_patch.standalone import is_standalone as is_standalone
from engine.tools.apply_patch.standalone import run_standalone as run_standalone
from engine.tools.apply_patch.turn_diff import TurnDiffTracker as TurnDiffTracker
from engine.tools.apply_patch.verifying import EMPTY_PATCH_REJECTION as EMPTY_PATCH_REJECTION
from engine.tools.apply_patch.verifying import VerifiedFile as VerifiedFile
from engine.tools.apply_patch.verifying import VerifiedPatch as VerifiedPatch
from engine.tools.apply_patch.verifying import verify_patch as verify_patch
