"""Registering routes, and what is refused there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootstrap.discovery import discover
from core.controller import Controller
from core.errors import NoRouteError, RouteError, StartError, TopicError
from core.middleware import Handler, Middleware
from core.retry import Retry
from core.route import Options
from core.router import RouteOptions, Router
from core.transport.connection import Subscription


async def handler(context: Any) -> Any:
    return context


async def other(context: Any) -> Any:
    return context


class Things(Controller):
    async def take(self, context: Any) -> tuple[Things, Any]:
        return self, context

    def slow(self, context: Any) -> bool:
        return threading.current_thread() is threading.main_thread()

    @staticmethod
    async def plain(context: Any) -> Any:
        return context

    @classmethod
    async def of_class(cls, context: Any) -> type[Things]:
        return cls


class MoreThings(Things):
    async def more(self, context: Any) -> tuple[Things, Any]:
        return await super().take(context)


async def run(router: Router, topic: str, context: Any = None) -> Any:
    return await router.match(topic).route.call(context)


async def test_a_method_runs_on_the_one_instance_of_its_class() -> None:
    router = Router()
    router.on("a", Things.take)
    router.on("b", Things.take)
    router.on("c", MoreThings.take)
    router.on("d", MoreThings.more)
    one, context = await run(router, "a", "context")
    assert type(one) is Things
    assert context == "context"
    assert (await run(router, "b"))[0] is one
    assert type((await run(router, "c"))[0]) is MoreThings
    assert type((await run(router, "d"))[0]) is MoreThings
    assert [route.handler_name for route in router.routes] == [
        "Things.take",
        "Things.take",
        "MoreThings.take",
        "MoreThings.more",
    ]


async def test_controllers_of_functions_own_instances_and_other_callables() -> None:
    class Local(Controller):
        def __init__(self, name: str = "default") -> None:
            self.name = name

        async def take(self, context: Any) -> str:
            return self.name

    class Called:
        async def __call__(self, context: Any) -> str:
            return "called"

    router = Router()
    router.on("local", Local.take)
    router.on("own", Local("mine").take)
    router.on("static", Things.plain)
    router.on("class", Things.of_class)
    router.on("call", Called())
    router.on("partial", partial(handler))
    router.on("lambda", lambda context: "sync")
    assert [await run(router, topic, 5) for topic in ("local", "own", "static", "class", "call", "partial", "lambda")] == [
        "default",
        "mine",
        5,
        Things,
        "called",
        5,
        "sync",
    ]


async def test_a_plain_method_runs_in_a_thread() -> None:
    router = Router()
    router.on("slow", Things.slow)
    assert await run(router, "slow") is False


def test_methods_stay_what_they_are() -> None:
    assert Things.take is Things.take
    assert MoreThings.__dict__.get("take") is None
    assert Things.logger.name.endswith("test_router.Things")


async def test_the_decorator_gives_the_function_back() -> None:
    router = Router()

    @router.on("a/<x>", qos=0)
    async def decorated(context: Any) -> str:
        return "x"

    assert await decorated({}) == "x"
    assert router.match("a/1").params == {"x": "1"}


async def test_the_first_registered_wins() -> None:
    router = Router()
    router.on("a/<int:n>", handler, name="numbers")
    router.on("a/<x>", handler, name="rest")
    assert router.match("a/1").route.name == "numbers"
    assert router.match("a/x").route.name == "rest"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("a/b", "a/b"),
        ("a/<x>", "a/b"),
        ("a/<x>", "a/<int:n>"),
        ("a/<x>", "a/+"),
        ("a/+", "a/<y>"),
        ("a/<float:x>", "a/<int:n>"),
        ("a/<int:n>", "a/12"),
        ("a/#", "a/b/c"),
        ("a/#", "a"),
        ("a/#", "a/<path:p>"),
        ("#", "a/#"),
        ("a/<path:p>", "a/<x>/b"),
        ("+/b/#", "a/b/<path:p>"),
    ],
)
def test_a_route_that_can_never_win_is_refused_naming_both_places(earlier: str, later: str) -> None:
    router = Router()
    router.on(earlier, handler)
    with pytest.raises(RouteError) as raised:
        router.on(later, other)
    text = str(raised.value)
    assert repr(earlier) in text
    assert repr(later) in text
    assert text.count("test_router.py:") == 2


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("a/<int:n>", "a/<x>"),
        ("a/<int:n>", "a/<float:x>"),
        ("a/<path:p>", "a/#"),
        ("a/b", "a/<x>"),
        ("#", "$SYS/#"),
        ("+/x", "$SYS/x"),
        ("a/<uuid:u>", "a/<int:n>"),
    ],
)
def test_a_route_that_can_win_is_taken(earlier: str, later: str) -> None:
    router = Router()
    router.on(earlier, handler)
    router.on(later, other)
    assert len(router.routes) == 2


def test_a_name_that_is_taken_is_refused() -> None:
    router = Router()
    router.on("a", handler, name="x")
    with pytest.raises(RouteError, match=r"the name 'x' is taken by 'a' at .*test_router\.py:\d+"):
        router.on("b", handler, name="x")


class NeedsArguments(Controller):
    def __init__(self, pool: object) -> None:
        self.pool = pool

    async def take(self, context: Any) -> object:
        return self.pool


async def no_arguments() -> None:
    return None


async def two_arguments(one: Any, two: Any) -> tuple[Any, Any]:
    return one, two


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"handler": Things}, "is a class. Give one of its methods"),
        ({"handler": "text"}, "is not callable"),
        ({"handler": no_arguments}, "must take one argument"),
        ({"handler": two_arguments}, "must take one argument"),
        ({"handler": NeedsArguments.take}, "cannot be made without arguments"),
        ({"qos": 2}, "Use qos=1"),
        ({"qos": 7}, "neither 0 nor 1"),
        ({"delivery": "perhaps"}, "not one of at_least_once, at_most_once, exactly_once"),
        ({"codec": "yaml"}, "there is no codec 'yaml'. There are json, text, raw"),
        ({"order_by": "y"}, "order_by='y' is not a parameter of the pattern. Its parameters are x"),
        ({"timeout": 0}, "not a positive number"),
        ({"retyr": Retry()}, "no option 'retyr'. Did you mean 'retry'?"),
        ({"middleware": [lambda context, next_handler: None]}, "neither a Middleware nor an async function"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_registered(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RouteError) as raised:
        Router().on("a/<x>", **{"handler": handler, **given})
    assert said in str(raised.value)
    assert "test_router.py:" in str(raised.value)


def test_a_wrong_pattern_names_its_place() -> None:
    with pytest.raises(TopicError, match=r"stands in it more than once \(at .*test_router\.py:\d+\)"):
        Router().on("a/<x>/<x>", handler)


def test_the_options_are_declared_alike_in_both_places() -> None:
    assert set(Options.__annotations__) == set(RouteOptions.__dataclass_fields__)


def test_groups_join_prefixes_and_hand_options_down() -> None:
    router = Router("v1", qos=0)
    with router.group("devices/<device_id>", codec="text") as devices:
        devices.on("data", handler)
        inner = devices.group("relay/<int:number>", qos=1)
        inner.on("state", handler, codec="raw")
    router.on("other", handler)
    assert [(r.pattern.text, r.options.qos, r.options.codec) for r in router.routes] == [
        ("v1/devices/<device_id>/data", 0, "text"),
        ("v1/devices/<device_id>/relay/<int:number>/state", 1, "raw"),
        ("v1/other", 0, "json"),
    ]
    assert router.match("v1/devices/d/relay/3/state").params == {"device_id": "d", "number": 3}


def test_including_keeps_what_was_given_and_its_place() -> None:
    inner = Router("devices", codec="text")
    inner.on("<id>", handler)
    outer = Router()
    outer.include(inner, prefix="site/<site>", qos=0, codec="raw")
    (route,) = outer.routes
    assert route.pattern.text == "site/<site>/devices/<id>"
    assert (route.options.qos, route.options.codec) == (0, "text")
    assert route.defined_at == inner.routes[0].defined_at
    with pytest.raises(RouteError, match="can never run"):
        outer.include(inner, prefix="site/<site>")


async def test_middleware_runs_around_the_handler_the_outermost_first() -> None:
    seen: list[str] = []

    class Tracing(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def handle(self, context: Any, next_handler: Handler) -> str:
            seen.append(f"{self.name} before")
            try:
                return f"{await next_handler(context)} {self.name}"
            finally:
                seen.append(f"{self.name} after")

    class Passing(Middleware):
        pass

    async def stopping(context: Any, next_handler: Handler) -> Any:
        return "stopped" if context == "stop" else await next_handler(context)

    async def handle(context: Any) -> str:
        if context == "fail":
            raise ValueError
        return "handled"

    router = Router(middleware=[Tracing("router")])
    group = router.group(middleware=[Passing, stopping])
    group.on("a", handle, middleware=[Tracing("route")])
    assert await run(router, "a", "go") == "handled route router"
    assert seen == ["router before", "route before", "route after", "router after"]
    assert await run(router, "a", "stop") == "stopped router"
    with pytest.raises(ValueError):
        await run(router, "a", "fail")


def test_a_topic_that_no_route_takes_is_told_with_what_came_nearest() -> None:
    router = Router()
    router.on("devices/<int:n>/data", handler)
    with pytest.raises(NoRouteError, match="'abc' is no int for 'n' in 'devices/<int:n>/data'"):
        router.match("devices/abc/data")
    with pytest.raises(NoRouteError, match="no route takes the topic 'else'"):
        router.match("else")
    with pytest.raises(NoRouteError) as raised:
        router.match("x/" * 1000)
    assert len(str(raised.value)) < 300


def test_subscriptions_leave_out_what_another_covers_at_its_qos() -> None:
    router = Router()
    router.on("a/b", handler, qos=1)
    router.on("a/<path:rest>", handler, qos=0)
    router.on("c/<x>", handler, qos=0)
    router.on("c/<x>/d", handler, qos=1)
    router.on("$SYS/broker", handler, qos=0)
    assert router.subscriptions() == [
        Subscription("$SYS/broker", 0),
        Subscription("a/#", 1),
        Subscription("c/+", 0),
        Subscription("c/+/d", 1),
    ]


def test_after_the_start_nothing_is_registered_any_more() -> None:
    router = Router()
    group = router.group("g")
    router.freeze()
    for one in (router, group):
        with pytest.raises(RouteError, match="has started"):
            one.on("a", handler)


# -- discovery ----------------------------------------------------------------------------------------------------------

Package = Callable[..., str]
"""Writes modules, given as keywords, into a package, and returns its name."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Package:
    name = f"routers_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> str:
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
        return name

    return write


GOOD = "from core.router import Router\nrouter = Router()\n@router.on('{}')\nasync def handle(context): ...\n"


def test_all_modules_are_found_in_order_of_their_names(package: Package) -> None:
    name = package(b=GOOD.format("b"), a=GOOD.format("a"), _hidden="raise RuntimeError")
    assert [route.pattern.text for route in discover(name).routes] == ["a", "b"]


def test_a_broken_module_stops_the_start_with_its_own_error(package: Package) -> None:
    name = package(a=GOOD.format("a"), broken="import nothing_of_this_name\n")
    with pytest.raises(StartError, match=r"broken\.py cannot be imported: ModuleNotFoundError") as raised:
        discover(name)
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_a_module_without_a_router_stops_the_start(package: Package) -> None:
    with pytest.raises(StartError, match="has no `router`"):
        discover(package(a="x = 1\n"))


def test_no_route_at_all_stops_the_start(package: Package) -> None:
    with pytest.raises(StartError, match="there is no route in"):
        discover(package())
    with pytest.raises(StartError, match="cannot be imported"):
        discover("no_such_package_anywhere")


def test_routes_of_two_modules_that_shadow_each_other_name_both_files(package: Package) -> None:
    with pytest.raises(RouteError, match=r"b\.py:3 can never run.*a\.py:3"):
        discover(package(a=GOOD.format("x/<y>"), b=GOOD.format("x/z")))
