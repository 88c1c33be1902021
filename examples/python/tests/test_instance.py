"""What an instance says of itself is what `docs/registry.md` asks for."""

import json

import pytest

from pointsman_registration import Instance, Registry, State


def test_a_record_says_what_differs_from_the_defaults() -> None:
    plain = Instance("orders", "10.0.0.5:8080", id="a1")
    assert json.loads(plain.record(State.READY)) == {"v": 1, "address": "10.0.0.5:8080", "weight": 100, "state": "ready"}
    full = Instance("orders", "10.0.0.5:8080", id="a1", weight=5, zone="b", probe_path="/healthz", metadata={"version": "2"})
    assert json.loads(full.record(State.DRAINING)) == {
        "v": 1,
        "address": "10.0.0.5:8080",
        "weight": 5,
        "state": "draining",
        "zone": "b",
        "probe": {"path": "/healthz"},
        "metadata": {"version": "2"},
    }


def test_the_key_is_under_the_prefix() -> None:
    assert Instance("orders", "10.0.0.5:8080", id="a1").key("/pointsman/") == "/pointsman/instances/orders/a1"


def test_without_an_id_machine_and_port_are_the_name() -> None:
    assert Instance("orders", "10.0.0.5:8080").id.endswith("-8080")


@pytest.mark.parametrize("address", ["", "10.0.0.5", ":8080", "10.0.0.5:", "10.0.0.5:http", "10.0.0.5:0", "10.0.0.5:65536"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Instance("orders", address)


@pytest.mark.parametrize(("service", "id", "weight"), [("or/ders", "a", 1), ("", "a", 1), ("o", "a b", 1), ("o", "a", 65536)])
def test_what_pointsman_would_reject_is_refused_here(service: str, id: str, weight: int) -> None:
    with pytest.raises(ValueError, match=r"^(service|id|weight): "):
        Instance(service, "10.0.0.5:8080", id=id, weight=weight)


def test_it_is_told_by_the_variables_of_pointsman_register() -> None:
    environ = {"POINTSMAN_SERVICE": "orders", "POINTSMAN_ADDRESS": "10.0.0.5:80", "POINTSMAN_INSTANCE": "x"}
    assert Instance.from_environment(environ=environ) == Instance("orders", "10.0.0.5:80", id="x")
    registry = Registry.from_environment({"POINTSMAN_REGISTRY_ENDPOINTS": "http://a:1, http://b:2"})
    assert registry == Registry(("http://a:1", "http://b:2"), "/pointsman")
    assert Registry.from_environment({}) is None


def test_an_earlier_life_has_our_address() -> None:
    ours = Instance("orders", "10.0.0.5:8080", id="a1")
    assert ours.is_earlier_life(ours.record(State.DRAINING))
    assert ours.is_earlier_life(b"10.0.0.5:8080\n")
    assert not ours.is_earlier_life(b'{"address":"10.0.0.6:8080"}')
    assert not ours.is_earlier_life(b"[1]")
    assert not ours.is_earlier_life(b"\xff")
