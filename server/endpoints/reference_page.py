"""``/openapi.json`` and ``/docs``: the OpenAPI document, and a page of it that needs nothing from elsewhere."""

import json
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.endpoints.openapi import openapi_document
from server.endpoints.replies import json_response
from server.endpoints.wire import OCTETS

# The colours of the monitor's page.
_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f7; --panel: #fff; --ink: #1b1f27; --soft: #596070; --rule: #dfe2e8;
  --first: #1f5fc4; --second: #b9520a; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151a; --panel: #1a1e25; --ink: #e7eaf0; --soft: #a0a8b8;
  --rule: #313743; --first: #76a9ff; --second: #f39a55; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 980px; padding: 0 20px 60px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 20px 0 0; font-size: 22px; } h1 span, .soft { color: var(--soft); font-weight: 400; }
h2 { margin: 30px 0 8px; font-size: 17px; } h3 { margin: 14px 0 4px; font-size: 13px; color: var(--soft); }
a { color: var(--first); }
article { margin: 0 0 12px; padding: 10px 16px 12px; border: 1px solid var(--rule); border-radius: 10px;
  background: var(--panel); }
summary { cursor: pointer; overflow-wrap: anywhere; } summary p { display: inline; }
.method { display: inline-block; min-width: 52px; padding: 0 8px; border: 1px solid var(--first); border-radius: 9px;
  color: var(--first); font-size: 12px; font-weight: 600; text-align: center; }
.post { border-color: var(--second); color: var(--second); }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, monospace; }
pre { margin: 4px 0; padding: 8px 12px; overflow-x: auto; border-radius: 6px; background: var(--ground); }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
td { padding: 3px 14px 3px 0; border-top: 1px solid var(--rule); vertical-align: top; }
td:first-child { width: 1%; white-space: nowrap; }
.command { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 600px) { .headers td { display: block; } .headers td + td { border: 0; padding-top: 0; } }
"""


class ReferencePage:
    """The document, made once, and its page."""

    def __init__(self, server_version: str) -> None:
        self._document = openapi_document(server_version)
        self._page = render(self._document)

    async def document(self, request: Request) -> Response:
        """``GET /openapi.json``"""
        return json_response(self._document)

    async def page(self, request: Request) -> Response:
        """``GET /docs``"""
        return HTMLResponse(self._page)


def render(document: dict[str, Any]) -> str:
    """Returns an OpenAPI document of this server as one page of HTML."""
    info = document["info"]
    groups = "".join(_group(tag, document) for tag in document["tags"])
    schemas = "".join(
        f'<article id="{escape(name)}"><details><summary><code>{escape(name)}</code></summary>{_pre(schema)}</details>'
        "</article>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Tiltyard: endpoints</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <span>{escape(info['version'])}</span></h1><p>{escape(info['description'])} "
        'For programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{groups}<h2>Schemas</h2>{schemas}</body></html>"
    )


def _group(tag: dict[str, str], document: dict[str, Any]) -> str:
    found = [
        _endpoint(path, method, operation, operations.get("parameters", []))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "parameters" and tag["name"] in operation["tags"]
    ]
    return f"<h2>{escape(tag['name'])} <span class='soft'>{escape(tag['description'])}</span></h2>{''.join(found)}"


def _endpoint(path: str, method: str, operation: dict[str, Any], shared: list[dict[str, Any]]) -> str:
    anchor = escape(operation["operationId"])
    parts = [f"<p>{escape(operation['description'])}</p>"] if "description" in operation else []
    scopes = [scope for requirement in operation.get("security", []) for scope in requirement.get("token", [])]
    token = f"a token of scope {scopes[0]}" if scopes else "any token" if "security" in operation else "no token"
    parts.append(f"<p class='soft'>Where tokens are in use it needs {escape(token)}.</p>")
    headers = [each for each in operation.get("parameters", []) if each not in shared]
    if headers:
        rows = "".join(_row(each["name"], each.get("description", each["schema"]["type"])) for each in headers)
        parts.append(f"<h3>Headers</h3><table class='headers'>{rows}</table>")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        parts.append(f"<h3>Body</h3>{_schema(body['schema'])}")
    parts.append(f"<h3>Try it</h3><pre class='command'>{escape(_curl(path, method, body, [*shared, *headers]))}</pre>")
    rows = "".join(_answer(status, answer) for status, answer in operation["responses"].items())
    parts.append(f"<h3>Answers</h3><table>{rows}</table>")
    return (
        f'<article id="{anchor}"><details><summary><span class="method {method}">{method.upper()}</span> '
        f"<code>{escape(path)}</code> <p class='soft'>{escape(operation['summary'])}</p></summary>"
        f"{''.join(parts)}</details></article>"
    )


def _answer(status: str, answer: dict[str, Any]) -> str:
    # A refusal's body is the same everywhere.
    bodies = list(answer["content"].items()) if int(status) < 300 else []
    shown = "".join(_schema(body["schema"]) for kind, body in bodies if kind != OCTETS.decode())
    if len(bodies) > 1:
        shown += "<span class='soft'>followed by raw tensors, where the request asks for them</span>"
    return f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}{shown}</td></tr>"


def _curl(path: str, method: str, body: dict[str, Any] | None, parameters: list[dict[str, Any]]) -> str:
    command = "curl"
    usual = "get" if body is None else "post"
    if method != usual:
        command += f" -X {method.upper()}"
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
        elif parameter.get("required"):
            command += f" -H '{parameter['name']}: {parameter['example']}'"
    command += f" localhost:8080{path}"
    return command if body is None else f"{command} -d '{json.dumps(body.get('example', {}))}'"


def _schema(schema: dict[str, Any]) -> str:
    """Returns a schema as a link where it has a name, and in full where it has none."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<div><a href="#{name}"><code>{name}</code></a></div>'
    return _pre(schema)


def _row(name: str, text: str) -> str:
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>"


def _pre(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())}</pre>"
