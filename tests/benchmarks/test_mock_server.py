from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from benchmarks.mock_server import Mock, answer, shell, start_mock


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with start_mock() as running:
        yield running


@pytest.fixture
def connection(mock: Mock) -> Iterator[http.client.HTTPConnection]:
    host, port = mock.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    yield connection
    connection.close()


def _respond(connection: http.client.HTTPConnection, body: object) -> list[dict[str, object]]:
    connection.request("POST", "/v1/responses", json.dumps(body))
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.getheader("content-type") == "text/event-stream"
    frames = reply.read().decode().strip().split("\n\n")
    return [json.loads(frame.split("data: ", 1)[1]) for frame in frames]


def test_a_text_arrives_in_deltas_and_whole(mock: Mock, connection: http.client.HTTPConnection) -> None:
    mock.script(answer("forty-two"))
    events = _respond(connection, {})
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(map(str, deltas)) == "forty-two"
    assert len(deltas) > 1
    assert [event["type"] for event in events][-2:] == ["response.output_item.done", "response.completed"]


@pytest.mark.parametrize(("tool", "argument"), [("exec_command", "cmd"), ("shell_command", "command")])
def test_a_command_goes_through_the_tool_that_is_offered(
    mock: Mock, connection: http.client.HTTPConnection, tool: str, argument: str
) -> None:
    mock.script(shell("true"))
    call = next(event["item"] for event in _respond(connection, {"tools": [{"name": tool}]}) if "item" in event)
    assert isinstance(call, dict)
    assert call["name"] == tool
    assert json.loads(call["arguments"]) == {argument: "true"}


def test_what_was_served_is_timed_and_counted(mock: Mock, connection: http.client.HTTPConnection) -> None:
    mock.script()
    began = time.monotonic()
    _respond(connection, {"input": "Process exited with code 0"})
    _respond(connection, {})
    ended = time.monotonic()
    first, second = mock.served()
    assert began < first.received <= first.sent < second.received <= second.sent < ended
    assert first.connection == second.connection
    assert (first.exits, second.exits) == (1, 0)
    mock.script()
    assert mock.served() == []


def test_models_are_listed_and_other_paths_refused(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"][0]["id"] == "mock-model"
    connection.request("GET", "/elsewhere")
    reply = connection.getresponse()
    reply.read()
    assert reply.status == 404
