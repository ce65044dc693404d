"""nginx decides who may ask, by address, host and origin, before the application sees a request."""

import json

import pytest

from app.errors import SettingsError
from app.settings import Settings
from tests.gateway import Gateway
from tests.helpers import wait_until

PROXY, STRANGER = "127.0.0.2", "203.0.113.9"
METRICS = ("/metrics", "/monitoring/prometheus/metrics")
FORWARDING = {
    "X_Forwarded_For": STRANGER,
    "Forwarded": f"for={STRANGER}",
    "X_Real_IP": STRANGER,
    "Via": "1.1 proxy",
}


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory):
    """Return a factory of gateways; the same settings give the same one."""
    made = {}

    def make(**settings: str) -> Gateway:
        key = tuple(sorted(settings.items()))
        if key not in made:
            made[key] = Gateway(tmp_path_factory.mktemp("g"), **settings)
        return made[key]

    yield make
    for gateway in made.values():
        gateway.close()


@pytest.fixture
def default(open_gateway) -> Gateway:
    return open_gateway()


@pytest.fixture
def behind_proxy(open_gateway) -> Gateway:
    """Return a gateway that trusts a proxy, which may be reached through another of its network."""
    return open_gateway(
        trusted_proxies=f"{PROXY},10.0.0.0/8", metrics_from="127.0.0.0/8,198.51.100.7"
    )


def via_proxy(gateway: Gateway, chain: str, path: str = "/", **options):
    return gateway.ask(path, source=PROXY, X_Forwarded_For=chain, **options)


def check_refused(answer, status: int = 403, word: str = "") -> None:
    assert (answer.status, answer.body["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert word in answer.body["detail"]


# Addresses


def test_nobody_is_believed_about_the_client_by_default(default):
    seen = default.ask(X_Forwarded_For=STRANGER, X_Forwarded_Proto="https", X_Real_IP=STRANGER).body
    assert (seen["x-forwarded-for"], seen["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert seen["x-forwarded-proto"] == "http"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (STRANGER, STRANGER),
        (f"{STRANGER}, 10.1.1.1, 10.2.2.2", STRANGER),
        (f"127.0.0.1, {STRANGER}", STRANGER),
        (f"10.9.9.9, 198.51.100.7, {STRANGER}, 10.1.1.1", STRANGER),
        (f"{STRANGER}:4711", STRANGER),
        ("2001:db8::9", "2001:db8::9"),
        ("nonsense", PROXY),
    ],
)
def test_the_client_of_a_listed_proxy_is_the_rightmost_address_that_is_no_proxy(
    behind_proxy, chain, client
):
    seen = via_proxy(behind_proxy, chain).body
    assert (seen["x-forwarded-for"], seen["x-real-ip"]) == (client, client)


def test_the_scheme_is_taken_from_listed_proxies_only(behind_proxy):
    def scheme(source: str, said: str) -> str:
        return behind_proxy.ask(source=source, X_Forwarded_Proto=said).body["x-forwarded-proto"]

    assert scheme(PROXY, "https") == "https"
    assert scheme(PROXY, "HTTP") == "http"
    assert scheme(PROXY, "gopher") == "http"
    assert scheme("127.0.0.3", "https") == "http"


@pytest.mark.parametrize("path", METRICS)
def test_the_metrics_are_for_this_machine_without_a_proxy_in_between(default, path):
    assert default.ask(path).status == 200
    for name, value in FORWARDING.items():
        check_refused(default.ask(path, **{name: value}), word="SERVING_METRICS_FROM")
        assert default.ask("/healthz", **{name: value}).status == 200


@pytest.mark.parametrize(
    "path", ["/%6Detrics", "//metrics", "/x/../metrics", "/metrics?name[]=up", "/metrics#x"]
)
def test_no_spelling_of_the_path_leads_to_the_metrics(default, path):
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        assert default.ask(path, method, X_Forwarded_For=STRANGER).status == 403


def test_through_a_listed_proxy_the_metrics_are_for_listed_clients(behind_proxy):
    for path in METRICS:
        assert via_proxy(behind_proxy, "198.51.100.7", path).status == 200
        check_refused(via_proxy(behind_proxy, STRANGER, path))
        check_refused(via_proxy(behind_proxy, f"127.0.0.1, {STRANGER}", path))
        # The proxy's own loopback address, not this machine's.
        check_refused(via_proxy(behind_proxy, "127.0.0.1", path))


def test_a_name_that_is_pointed_to_this_machine_does_not_lead_to_the_metrics(default):
    for host in ("127.0.0.1:8999", "localhost", "[::1]:8999", "server:8999", "127.0.0.1"):
        assert default.ask("/metrics", Host=host).status == 200, host
    for host in ("rebind.evil.example:8999", "127.0.0.1.evil.example", "7f.1", "a.b"):
        check_refused(default.ask("/metrics", Host=host))


def test_strangers_are_marked_for_the_application_and_cannot_hide_it(behind_proxy):
    assert "x-serving-stranger" not in behind_proxy.ask().body
    seen = via_proxy(behind_proxy, STRANGER, X_Serving_Stranger="").body
    assert seen["x-serving-stranger"] == "1"


def test_allowed_and_denied_clients_are_told_apart_by_the_smaller_network(open_gateway):
    gateway = open_gateway(
        trusted_proxies=PROXY, allow="10.0.0.0/8,fd00::/8", deny="10.1.0.0/16,127.0.0.7"
    )
    for client in ("10.2.3.4", "fd00::1"):
        assert via_proxy(gateway, client).status == 200
    for client in ("10.1.2.3", STRANGER, "2001:db8::1"):
        check_refused(via_proxy(gateway, client), word="address")
    check_refused(via_proxy(gateway, "127.0.0.1"), word="address")
    assert gateway.ask().status == 200, "this machine always, for its health check"
    check_refused(gateway.ask(X_Forwarded_For="10.2.3.4"))
    for method in ("GET", "TRACE", "DELETE"):
        check_refused(gateway.ask("/metrics", method, source="127.0.0.7"))


def test_a_refused_body_is_not_read(open_gateway):
    gateway = open_gateway(deny="127.0.0.9")
    answer = gateway.ask(
        "/predict", "POST", source="127.0.0.9", Content_Length="30000000", body=b"x"
    )
    check_refused(answer)


def test_the_log_says_at_the_start_who_is_let_in(shared, default):
    (line,) = [
        row
        for row in map(json.loads, shared.log.read_text().splitlines())
        if row["logger"] == "gateway"
    ]
    assert (
        f"listening on 127.0.0.1:{shared.port}; clients: all addresses but 127.0.0.9"
        in line["message"]
    )
    assert f"pages of other origins: {APP}, http://localhost:3000" in line["message"]
    assert "metrics for 127.0.0.0/8, ::1/128; trusted proxies: none" in default.log.read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOW", "10.0.0.1/8"),
        ("DENY", "example.org"),
        ("TRUSTED_PROXIES", "10.0.0.0/8;"),
        ("METRICS_FROM", "all"),
        ("HOSTS", "a.example:8999"),
        ("HOSTS", "a b;}"),
        ("HOSTS", "*.*.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", 'https://a";'),
    ],
)
def test_a_malformed_list_stops_the_start_with_its_name_and_value(name, value):
    with pytest.raises(SettingsError, match=rf"SERVING_{name}=.*expected"):
        Settings.from_env({f"SERVING_{name}": value})


def test_a_network_cannot_be_both_allowed_and_denied():
    with pytest.raises(
        SettingsError, match=r"10\.0\.0\.0/8 is in SERVING_ALLOW and in SERVING_DENY"
    ):
        Settings.from_env({"SERVING_ALLOW": "10.0.0.0/8", "SERVING_DENY": "10.0.0.0/8"})


# Hosts


def test_any_host_is_answered_by_default(default):
    for host in ("a.example", "127.0.0.1", "x:9"):
        assert default.ask(Host=host).status == 200


def test_with_a_list_other_hosts_are_answered_421(open_gateway):
    gateway = open_gateway(hosts="classify.example.org,*.lab.example,default,include")
    good = ("classify.example.org", "Classify.Example.Org:8999", "a.lab.example", "a.b.lab.example")
    for host in (*good, "default", "include", "127.0.0.1:8999", "[::1]", "localhost:1"):
        assert gateway.ask(Host=host).status == 200, host
    for host in ("lab.example", "evil.example", "classify.example.org.evil.example", "1.evil"):
        for path in ("/", "/metrics", "/.problem"):
            check_refused(gateway.ask(path, Host=host), 421, "SERVING_HOSTS")
        assert gateway.ask(method="TRACE", Host=host).status == 421


# Pages of other origins


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://a.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://a.example:81"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_another_origin_may_not_send(default, headers):
    check_refused(
        default.ask("/predict", "POST", Host="a.example", **headers), word="SERVING_CORS_ORIGINS"
    )
    assert default.ask("/predict", Host="a.example", **headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://public.example"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "http://a.example"},
        {"Origin": "https://a.example"},
    ],
)
def test_the_servers_own_page_and_programs_may_send(default, headers):
    answer = default.ask("/predict", "POST", Host="a.example", **headers)
    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


APP = "https://app.example.org"


@pytest.fixture
def shared(open_gateway) -> Gateway:
    """Return a gateway that pages of two origins may use."""
    return open_gateway(cors_origins=f"{APP},http://localhost:3000", deny="127.0.0.9")


def test_a_listed_origin_may_send_and_read(shared):
    answer = shared.ask("/predict", "POST", Origin=APP, Sec_Fetch_Site="cross-site")
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers.get_all("Vary")
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Methods" not in answer.headers


def test_a_listed_origin_may_read_errors_of_the_gateway(shared):
    answer = shared.ask("/nowhere", "POST", Origin=APP, body=bytes(20_000))
    assert answer.status == 413
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "Origin" in answer.headers.get_all("Vary")


def test_preflights_of_listed_origins_are_answered_by_the_gateway(shared):
    asked = {"Access_Control_Request_Method": "POST"}
    answer = shared.ask("/predict", "OPTIONS", Origin=APP, **asked)
    assert (answer.status, answer.body) == (204, {})
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Private-Network" not in answer.headers
    other = shared.ask("/predict", "OPTIONS", Origin="https://evil.example", **asked)
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers.get_all("Vary")
    check_refused(shared.ask("/predict", "OPTIONS", source="127.0.0.9", Origin=APP, **asked))


@pytest.mark.parametrize("origin", ["https://app.example.org.evil.example", f"{APP}:8443", "null"])
def test_an_origin_that_looks_like_a_listed_one_is_none(shared, origin):
    check_refused(shared.ask("/predict", "POST", Origin=origin))
    assert "Access-Control-Allow-Origin" not in shared.ask("/", Origin=origin).headers


def test_refusals_are_logged_and_preflights_are_not(shared):
    shared.ask("/preflight", "OPTIONS", Origin=APP, Access_Control_Request_Method="POST")
    shared.ask("/refused", "POST", Origin="null")
    wait_until(lambda: "POST /refused 403" in shared.log.read_text(), 10)
    assert "/preflight" not in shared.log.read_text()


def test_with_a_star_every_page_may_use_the_server_but_one_without_origin(open_gateway):
    gateway = open_gateway(cors_origins="*")
    answer = gateway.ask("/predict", "POST", Origin="http://a.example")
    assert answer.headers["Access-Control-Allow-Origin"] == "http://a.example"
    check_refused(gateway.ask("/predict", "POST", Origin="null"))


# Headers


def test_every_answer_has_the_headers_of_a_careful_server_once(shared):
    for answer in (
        shared.ask(),
        shared.ask("/x", "POST", body=bytes(20_000)),
        shared.ask("/.problem"),
    ):
        for name, value in {
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }.items():
            assert answer.headers.get_all(name) == [value]
        assert len(answer.headers.get_all("X-Request-ID")) == 1
