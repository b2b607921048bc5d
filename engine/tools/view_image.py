"""`view_image`: shows the model an image file (tools.md 1.8, 1.10)."""

from __future__ import annotations

import posixpath
from typing import Literal

import trio

from engine.protocol.events import ViewImageToolCall
from engine.protocol.items import InputImage
from engine.protocol.wire import JsonObject, Wire
from engine.records import frozen
from engine.tools import specs
from engine.tools.base import ToolError, ToolInvocation, ToolOutput, parse_arguments
from engine.tools.command_requests import check_environment
from engine.tools.guarded_files import guarded_files
from engine.tools.images import image_data_url

__all__ = ["ViewImage"]

_DETAILS = ("high", "original")
_DESCRIPTION = (
    "Looks at an image file on this machine. Use it for images that you know the path of and that are not already in "
    "the conversation."
)


@frozen(kw_only=True)
class ViewImageArguments(Wire):
    """What the model sends."""

    path: str
    detail: str | None = None
    environment_id: str | None = None


@frozen(eq=False)
class ViewImage:
    """Serves `view_image`. `original` says whether the model can take images in their original size."""

    original: bool = False
    name: str = "view_image"
    namespace: None = None
    kind: Literal["function"] = "function"
    parallel: bool = True

    def spec(self) -> JsonObject:
        """What the model is told."""
        properties = {"path": specs.string("The path of the image file.")}
        if self.original:
            properties["detail"] = specs.enumeration(
                _DETAILS, "`original` keeps the full resolution, for fine detail or exact places. Defaults to `high`."
            )
        return specs.function_spec(self.name, _DESCRIPTION, specs.object_schema(properties, ["path"]))

    async def call(self, invocation: ToolInvocation) -> ToolOutput:
        """Reads the file in a worker thread, which a cancellation abandons."""
        context = invocation.context
        if not context.model_sees_images:
            raise ToolError("view_image is not allowed because this model does not take images")
        arguments = parse_arguments(invocation, ViewImageArguments)
        check_environment(arguments.environment_id)
        if arguments.detail is not None and arguments.detail not in _DETAILS:
            raise ToolError(f"view_image: `detail` must be `high` or `original`, got `{arguments.detail}`")
        path = posixpath.normpath(posixpath.join(context.cwd, arguments.path))
        permissions = context.permissions

        def read() -> str:
            return image_data_url(path, guarded_files(permissions))

        url = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        context.emit(ViewImageToolCall(invocation.call_id, path))
        detail = "original" if arguments.detail == "original" and context.model_sees_original_detail else "high"
        return ToolOutput((InputImage(url, detail=detail),))
