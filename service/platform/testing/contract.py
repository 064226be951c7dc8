"""Every HTTP answer held against the document of the service that gave it: a client that a test uses like any other."""

import json
from functools import cache
from re import escape, fullmatch, split
from typing import Any
from urllib.parse import unquote

import httpx2
import jsonschema_rs

PROBLEM = "application/problem+json"
OPENAPI = "/openapi.json"
PATIENCE = 60.0  # seconds until an answer is taken not to come, on a busy machine


class Client(httpx2.AsyncClient):
    """An AsyncClient that raises AssertionError for an answer that `/openapi.json` does not describe."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url=base_url, event_hooks={"response": [self._check]}, timeout=PATIENCE)
        self._contract: Contract | None = None

    async def _check(self, response: httpx2.Response) -> None:
        await response.aread()
        if response.request.url.path == OPENAPI:
            return
        if self._contract is None:
            document = await self.get(OPENAPI)
            told = f"{OPENAPI} answers {document.status_code}: the service's log says why"
            assert document.status_code == 200, told
            self._contract = read_contract(document.text)
        self._contract.check(response)


class Contract:
    """What a document says of each operation."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def check(self, response: httpx2.Response) -> None:
        """Raise AssertionError when the answer is not described: its status, media type, headers or body."""
        path, method = unquote(response.request.url.path), response.request.method.lower()
        operation = self._operations(path).get("get" if method == "head" else method)  # RFC 9110, 9.3.2
        if operation is None:  # which is for the framework to say
            described = self._resolve({"$ref": "#/components/responses/ServiceError"})
            assert response.status_code >= 400, f"{method} {path} is not described, and answers {response.status_code}"
        else:
            described = self._describe(operation, response)
        self._check_headers(described, response)
        self._check_body(described, response)

    def _describe(self, operation: dict[str, Any], response: httpx2.Response) -> dict[str, Any]:
        responses, status = operation["responses"], str(response.status_code)
        if status not in responses and "default" in responses:
            return {}
        assert status in responses, f"{operation['operationId']} answers {status}; described are {sorted(responses)}"
        return self._resolve(responses[status])

    def _operations(self, path: str) -> dict[str, Any]:
        """Return those of a path: without parts sooner than with, and with one that has slashes last."""
        paths: dict[str, dict[str, Any]] = self.document["paths"]
        for pattern in ("[^/]+", ".+"):
            for template in sorted(paths, key=lambda template: template.count("{")):
                if fullmatch(pattern.join(escape(fixed) for fixed in split(r"{\w+}", template)), path):
                    return paths[template]
        return {}

    def _resolve(self, described: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in described:
            return described
        found: dict[str, Any] = self.document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        return found

    def _check_headers(self, described: dict[str, Any], response: httpx2.Response) -> None:
        for name, header in described.get("headers", {}).items():
            assert name in response.headers or not header["required"], f"{response} has no {name}"
            if header["schema"]["type"] == "integer":
                assert response.headers[name].isdecimal(), f"{name}: {response.headers[name]}"

    def _check_body(self, described: dict[str, Any], response: httpx2.Response) -> None:
        if response.request.method == "HEAD" or "content" not in described:
            return
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in described["content"], f"{response} is {kind}; described are {list(described['content'])}"
        if "schema" in described["content"][kind]:
            problems = problems_of(described["content"][kind]["schema"], self.document, response.json())
            assert not problems, f"{response.request.url}: {problems}"


@cache
def read_contract(text: str) -> Contract:
    return Contract(json.loads(text))


def problems_of(schema: dict[str, Any], document: dict[str, Any], value: object) -> list[str]:
    """Return what is wrong with a value by a schema of a document, in which alone the schema's references lead."""
    whole = {"components": document["components"], **schema}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return [error.message for error in validator.iter_errors(value)]
