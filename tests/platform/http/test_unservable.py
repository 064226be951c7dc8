"""What Quart offers and is not served here, or not yet when it is: said by name at the start."""

import re
from typing import TYPE_CHECKING

import pytest
from quart import Blueprint

from service.platform.declarations import UndeclaredError
from service.platform.http.app import create_app
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.settings import PlatformSettings

if TYPE_CHECKING:
    from werkzeug import Response


def routes_of(folder: str | None = None) -> Blueprint:
    """Return two routes whose annotations the type checker alone knows, beside a folder of files."""
    routes = Blueprint("shop", __name__, static_folder=folder, static_url_path="/files")

    @routes.get("/all")
    @anyone
    @unlimited("a constant")
    async def all_() -> "Response":
        raise NotImplementedError

    @routes.get("/one/<int:id>")
    @anyone
    @unlimited("a constant")
    async def one(id: int) -> "Response":
        raise NotImplementedError

    return routes


def test_a_view_that_is_annotated_with_a_name_of_the_type_checker_s_stops_the_start() -> None:
    told = "is annotated with Response, which is not there when it serves: import it outside of `if TYPE_CHECKING`"
    lines = f"GET /all (shop.all_): {told}\nGET /one/<int:id> (shop.one): {told}"

    with pytest.raises(UndeclaredError, match=f"^{re.escape(lines)}$"):
        create_app([routes_of()], PlatformSettings(database_url="postgresql://h/d"))


def test_a_view_that_is_annotated_with_a_module_of_the_type_checker_s_stops_the_start() -> None:
    """The package is there, and not what of it is imported for the type checker alone."""
    routes = Blueprint("shop", __name__)

    @routes.get("/all")
    @routes.get("/one/<int:id>")
    @anyone
    @unlimited("a constant")
    async def all_(id: int = 0) -> "re.nowhere.Thing":  # type: ignore[name-defined]  # as it is when it serves
        raise NotImplementedError

    with pytest.raises(UndeclaredError, match="is annotated with nowhere, which is not there when it serves"):
        create_app([routes], PlatformSettings(database_url="postgresql://h/d"))


def test_a_folder_of_files_stops_the_start_and_is_told_what_there_is_instead() -> None:
    routes = Blueprint("shop", __name__)
    routes.register_blueprint(Blueprint("page", __name__, static_folder="page"))
    advice = "send its files by `add_document(routes, path, body, headers)`"
    told = f"blueprint shop.page: a static_folder is not served: {advice}"

    with pytest.raises(UndeclaredError, match=f"^{re.escape(told)}$"):
        create_app([routes], PlatformSettings(database_url="postgresql://h/d"))
