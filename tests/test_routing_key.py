"""The key by which a request is routed where versions share traffic."""

from app.web.input.client import routing_key
from app.web.limits import MAX_ROUTING_KEY


def keys(app, **headers):
    """Return the key twice, as the check for room and the answer ask for it."""
    with app.test_request_context(headers=headers):
        return routing_key(), routing_key()


def test_a_request_without_a_key_keeps_the_one_that_it_was_given(client):
    first, again = keys(client.application)
    assert first == again
    assert first != keys(client.application)[0], "the next one goes by chance"


def test_a_clients_own_key_is_taken_as_far_as_it_counts(client):
    app = client.application
    assert keys(app, **{"X-Routing-Key": "anna"}) == ("anna", "anna")
    (first, _) = keys(app, **{"X-Routing-Key": "a" * 5000})
    assert first == "a" * MAX_ROUTING_KEY
