"""The document of an application, against the official schema and against what its routes say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from urllib.parse import urldefrag

import pytest
from jsonschema import Draft7Validator

from bootstrap.commands.asyncapi import server
from bootstrap.discovery import discover
from config.settings import Settings
from core.asyncapi.document import About, describe
from core.asyncapi.server import Server
from core.router import Router
from tests.asyncapi.rich import Reading, Status, build, nothing, total

ABOUT = About("Fleet", "1.2.3", "A fleet of devices.")
SERVER = Server("broker.example:8883", "secure-mqtt", password=True, certificate=True, client_id="fleet-1")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(build(), ABOUT, SERVER)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def at(document: dict[str, Any], reference: str) -> Any:
    found = document
    for part in urldefrag(reference)[1].strip("/").split("/"):
        found = found[part]
    return found


def messages(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{channel}/{name}": message
        for channel, one in document["channels"].items()
        for name, message in one["messages"].items()
    }


def invalid(validator: Draft7Validator, document: dict[str, Any]) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(document)]


# -- against the specification -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_rich_application_is_valid(official: Draft7Validator, version: str) -> None:
    one = Server("[::1]:443", "wss", version, "/mqtt", "Behind a proxy.", password=True, certificate=True)
    assert invalid(official, describe(build(), ABOUT, one)) == []


def test_the_example_application_is_valid(official: Draft7Validator) -> None:
    document = describe(discover(), About("example", "1"), server(Settings()))
    assert invalid(official, document) == []
    assert [channel["address"] for channel in document["channels"].values()][:3] == [
        "devices/{device_id}/data",
        "devices/{device_id}/history",
        "rtl_433/{model}/{device_id}",
    ]


def test_the_official_schema_would_say_what_is_wrong(official: Draft7Validator, document: dict[str, Any]) -> None:
    wrong = deepcopy(document)
    wrong["operations"]["echo"]["bindings"]["mqtt"]["qos"] = 3
    wrong["channels"]["echo.u.f"]["parameters"]["u"]["schema"] = {}
    assert len(invalid(official, wrong)) >= 2


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        at(document, reference)


def test_the_messages_of_an_operation_are_those_of_its_channel(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        for part in (operation, operation.get("reply")):
            for message in (part or {}).get("messages", ()):
                assert message["$ref"].startswith(part["channel"]["$ref"] + "/messages/")


def test_examples_are_valid_against_their_schemas(document: dict[str, Any]) -> None:
    told = []
    for name, message in messages(document).items():
        for example in message.get("examples", ()):
            # What the references of the payload start from is the schema that is validated against.
            schema = message["payload"] | {"components": document["components"]}
            check = Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER)
            check.validate(example["payload"])
            told.append(name)
    assert len(told) >= 15


def test_it_is_json_and_the_same_every_time(document: dict[str, Any]) -> None:
    text = json.dumps(document, allow_nan=False)
    assert json.dumps(describe(build(), ABOUT, SERVER), allow_nan=False) == text


# -- what it says ------------------------------------------------------------------------------------------------------


def test_a_route_is_a_channel_an_operation_and_a_message(document: dict[str, Any]) -> None:
    channel = document["channels"]["devices.device_id.data"]
    assert channel["address"] == "devices/{device_id}/data"
    assert channel["description"] == "Subscribed to as `devices/+/data`."
    assert channel["parameters"]["device_id"]["x-routemq-converter"] == "str"
    operation = document["operations"]["Devices.reading"]
    assert operation["action"] == "receive"
    assert operation["summary"] == "Store one reading."
    assert operation["description"].startswith("The device's clock must be right")
    assert operation["bindings"] == {"mqtt": {"qos": 1, "retain": False, "bindingVersion": "0.2.0"}}
    message = at(document, operation["messages"][0]["$ref"])
    assert message["contentType"] == "application/json"
    assert message["payload"] == {"$ref": "#/components/schemas/rich.Reading"}
    assert message["examples"][0]["payload"]["value"] == 21.5
    # It returns nothing, so nothing is answered.
    assert "reply" not in operation
    assert "headers" not in message


def test_options_are_told(document: dict[str, Any]) -> None:
    operations = document["operations"]
    assert operations["Devices.many"]["bindings"]["mqtt"]["qos"] == 0
    assert operations["Devices.many"]["x-routemq-batch"] == 500
    assert operations["Devices.many"]["x-routemq-order-by"] == "nothing"
    assert operations["Devices.command"]["x-routemq-delivery"] == "exactly_once"
    assert operations["Devices.command"]["x-routemq-dedup"] == "id"
    assert operations["echo"]["x-routemq-delivery"] == "at_most_once"
    assert operations["echo"]["x-routemq-order-by"] == "{u}"
    assert operations["echo"]["x-routemq-handler"] == "echo"
    assert [operations[key]["x-routemq-codec"] for key in ("echo", "nothing", "nothing_2")] == ["json", "text", "raw"]


def test_parameters_say_what_they_take(document: dict[str, Any]) -> None:
    channels = document["channels"]
    found = channels["echo.u.f"]["parameters"]
    assert (found["u"]["x-routemq-converter"], found["f"]["x-routemq-converter"]) == ("uuid", "float")
    assert channels["x.n"]["address"] == channels["x.n_2"]["address"] == "x/{n}"
    assert channels["x.n"]["parameters"]["n"]["examples"] == ["42"]
    assert channels["text.level_2.x"]["address"] == "text/{level_2}/x"
    assert channels["any.rest"]["address"] == "any/{rest}"
    # The parameters of a reply are those of its route.
    assert channels["devices.device_id.answers.number"]["parameters"]["number"]["x-routemq-converter"] == "int"


def test_models_of_one_name_are_told_apart(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["other.Reading"]["properties"]) == {"kwh"}
    assert "serial" in schemas["rich.Reading"]["properties"]
    # What is written as it is read is there once.
    (answer,) = document["operations"]["echo"]["reply"]["messages"]
    assert at(document, answer["$ref"])["payload"] == {"$ref": "#/components/schemas/rich.Reading"}
    assert set(schemas["Area-Input"]["properties"]) == {"w", "h"}
    assert set(schemas["Area-Output"]["properties"]) == {"width", "height", "area"}


def test_schemas_are_of_draft_07(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Everything"]["properties"]["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert "reNamed" in schemas["Everything"]["properties"]
    assert schemas["rich.Reading"]["properties"]["unit"]["allOf"] == [{"$ref": "#/components/schemas/Unit"}]
    command = at(document, document["operations"]["Devices.command"]["messages"][0]["$ref"])
    assert command["payload"]["x-routemq-discriminator"] == "kind"
    assert "$defs" not in json.dumps(document)
    assert "prefixItems" not in json.dumps(document)


def test_codecs_without_a_schema_say_what_they_can(document: dict[str, Any]) -> None:
    found = messages(document)
    assert found["text.level_2.x/nothing"]["payload"] == {"type": "string"}
    assert found["text.level_2.x/nothing"]["contentType"].startswith("text/plain")
    assert found["raw.rest/nothing_2"]["payload"] == {"type": "string", "format": "binary"}
    assert "payload" not in found["any.rest/nothing_3"]


# -- replies -----------------------------------------------------------------------------------------------------------


def test_a_reply_goes_to_the_topic_of_the_route(document: dict[str, Any]) -> None:
    reply = document["operations"]["Devices.ask"]["reply"]
    channel = at(document, reply["channel"]["$ref"])
    assert channel["address"] == "devices/{device_id}/answers/{number}"
    assert "address" not in reply
    (message,) = [at(document, one["$ref"]) for one in reply["messages"]]
    assert message["payload"] == {"$ref": "#/components/schemas/Status"}
    assert message["examples"] == [{"payload": {"ok": True, "took": 0.25}}]


def test_a_reply_goes_to_the_response_topic_where_the_route_names_none(document: dict[str, Any]) -> None:
    operation = document["operations"]["Devices.command"]
    reply = operation["reply"]
    assert reply["address"]["location"] == "$message.header#/responseTopic"
    assert at(document, reply["channel"]["$ref"])["address"] is None
    asked = at(document, operation["messages"][0]["$ref"])
    assert set(asked["headers"]["properties"]) == {"responseTopic", "correlationData"}
    assert asked["correlationId"]["location"] == "$message.header#/correlationData"
    answer, error = (at(document, one["$ref"]) for one in reply["messages"])
    assert answer["payload"] == {"type": "array", "items": {"$ref": "#/components/schemas/Point"}}
    assert error["payload"]["required"] == ["error"]


def test_mqtt_3_has_no_response_topics() -> None:
    document = describe(build(), ABOUT, Server("b:1883", version="3.1.1"))
    assert "responses" not in document["channels"]
    assert "reply" not in document["operations"]["echo"]
    assert "reply" in document["operations"]["Devices.ask"]
    assert "responseTopic" not in json.dumps(document)
    assert "sessionExpiryInterval" not in document["servers"]["broker"]["bindings"]["mqtt"]


def test_an_answer_that_nobody_can_read_the_type_of_is_not_told(document: dict[str, Any]) -> None:
    assert "reply" not in document["operations"]["unreadable"]
    (message,) = [at(document, one["$ref"]) for one in document["operations"]["other_reading_2"]["reply"]["messages"]]
    assert "payload" not in message


def test_a_reply_may_go_to_the_channel_of_another_route() -> None:
    router = Router()
    router.on("ask/<n>", total, reply="told/<n>")
    router.on("told/<n>", nothing, schema=Reading)
    router.on("responses", nothing)
    router.on("other", total)
    document = describe(router, ABOUT, SERVER)
    assert document["operations"]["total"]["reply"]["channel"] == {"$ref": "#/channels/told.n"}
    assert set(document["channels"]["told.n"]["messages"]) == {"Reading", "total.reply"}
    assert document["operations"]["total_2"]["reply"]["channel"] == {"$ref": "#/channels/responses_2"}


# -- the broker --------------------------------------------------------------------------------------------------------


def test_credentials_are_asked_for_and_never_shown() -> None:
    settings = Settings(mqtt_url="mqtts://m%C3%BCller:s3cr3t@broker.example", mqtt_client_id="fleet-1", mqtt_keepalive=30)
    document = describe(build(), ABOUT, server(settings))
    text = json.dumps(document, ensure_ascii=False)
    assert "s3cr3t" not in text
    assert "müller" not in text
    broker = document["servers"]["broker"]
    assert (broker["host"], broker["protocol"], broker["protocolVersion"]) == ("broker.example:8883", "secure-mqtt", "5")
    assert broker["security"] == [{"$ref": "#/components/securitySchemes/password"}]
    assert broker["bindings"]["mqtt"]["clientId"] == "fleet-1"
    assert broker["bindings"]["mqtt"]["keepAlive"] == 30


@pytest.mark.parametrize(
    ("url", "host", "protocol", "path"),
    [
        ("embedded://127.0.0.1:1884", "127.0.0.1:1884", "mqtt", None),
        ("ws://[::1]:9001/socket", "[::1]:9001", "ws", "/socket"),
        ("wss://broker.example", "broker.example:443", "wss", "/mqtt"),
        ("unix:///run/secret-place/mosquitto.sock", "localhost", "mqtt", None),
    ],
)
def test_the_broker_is_told_as_asyncapi_names_it(
    official: Draft7Validator, url: str, host: str, protocol: str, path: str | None
) -> None:
    document = describe(build(), ABOUT, server(Settings(mqtt_url=url)))
    broker = document["servers"]["broker"]
    assert (broker["host"], broker["protocol"], broker.get("pathname")) == (host, protocol, path)
    # The client identifier of the machine's own making would be another one on each machine.
    assert "clientId" not in broker["bindings"]["mqtt"]
    assert "secret-place" not in json.dumps(document)
    assert "security" not in broker
    assert invalid(official, document) == []


def test_the_topic_filter_and_the_quality_of_service_are_told(document: dict[str, Any]) -> None:
    assert document["channels"]["other"]["description"] == "Subscribed to as `other`."
    assert document["operations"]["echo"]["bindings"]["mqtt"] == {"qos": 1, "retain": False, "bindingVersion": "0.2.0"}


def test_the_schemas_of_replies_have_the_examples_of_their_authors(document: dict[str, Any]) -> None:
    extra = Status.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    assert document["components"]["schemas"]["Status"]["examples"] == extra["examples"]
