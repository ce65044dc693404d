"""The trace of a request is taken from its ``traceparent`` header, if that is well-formed, into the log and to URLs."""

import re

import pytest
import requests

from app.web.tracing import Trace, read_trace
from tests.helpers import ROOT, gray
from tests.test_urls import at, fetcher, gallery  # noqa: F401  (a fixture)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
GOOD = {
    "as specified": GIVEN,
    "not sampled": f"00-{TRACE}-{PARENT}-00",
    "unknown flags": f"00-{TRACE}-{PARENT}-ff",
    "a later version": f"cc-{TRACE}-{PARENT}-01",
    "a later version with more fields": f"01-{TRACE}-{PARENT}-01-what-the-future-has",
    "a later version with an empty field": f"01-{TRACE}-{PARENT}-01-",
}
BAD = {
    "nothing": "",
    "text": "nonsense",
    "version ff": f"ff-{TRACE}-{PARENT}-01",
    "no version": f"{TRACE}-{PARENT}-01",
    "an illegal version": f"0g-{TRACE}-{PARENT}-01",
    "upper case": GIVEN.upper(),
    "a trace id of zeros": f"00-{'0' * 32}-{PARENT}-01",
    "a parent of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "a short trace id": f"00-{TRACE[1:]}-{PARENT}-01",
    "a long parent": f"00-{TRACE}-{PARENT}0-01",
    "short flags": f"00-{TRACE}-{PARENT}-1",
    "no flags": f"00-{TRACE}-{PARENT}",
    "more in version 00": f"{GIVEN}-more",
    "a dash more in version 00": f"{GIVEN}-",
    "a later version with more but no dash": f"01-{TRACE}-{PARENT}-01more",
    "a later version of any length": f"01-{TRACE}-{PARENT}-01-{'a' * 4000}",
    "several headers": f"{GIVEN},{GIVEN}",
    "several headers of a later version": f"01-{TRACE}-{PARENT}-01,{GIVEN}",
    "a control character": f"01-{TRACE}-{PARENT}-01-\x01",
    "digits of another script": GIVEN.replace("4", "٤"),
    "white space": f" {GIVEN}",
    "a line break": f"{GIVEN}\n",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_well_formed_header_is_read(text):
    trace = read_trace(text)
    assert (trace.trace_id, trace.parent_id) == (TRACE, PARENT)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_malformed_header_is_no_trace(text):
    assert read_trace(text) is None


def test_nginx_accepts_the_same_headers():
    text = (ROOT / "conf" / "nginx.conf").read_text()
    (pattern,) = re.findall(r'"~(.*)" \$own_trace;', text)
    rule = re.compile(pattern.replace("(?<own_trace>", "(?P<own_trace>"))
    for given in GOOD.values():
        assert rule.search(given)["own_trace"] == TRACE, given
    # A header's value has no line break at its end, where PCRE's and Python's "$" match too.
    assert [
        given for given in BAD.values() if rule.search(given.rstrip("\n")) and "\n" not in given
    ] == []


def test_the_access_log_names_trace_and_spans(client, caplog):
    caplog.set_level("INFO")
    client.post(
        "/predict", data=gray(150), content_type="image/png", headers={"traceparent": GIVEN}
    )
    client.get("/", headers={"traceparent": "00-none", "tracestate": "vendor=secret"})
    traced, other = (each.fields for each in caplog.records if each.name == "access")
    assert (traced["trace_id"], traced["parent_span_id"]) == (TRACE, PARENT)
    assert re.fullmatch("[0-9a-f]{16}", traced["span_id"])
    assert not {"trace_id", "parent_span_id", "span_id"} & other.keys()
    assert "secret" not in caplog.text


def test_nginx_names_the_trace_in_its_own_lines(server):
    for given, logged in ((GIVEN, TRACE), (f"{GIVEN}0", "")):
        headers = {"traceparent": given, "Content-Type": "image/png"}
        refused = requests.post(f"{server.url}/", data=bytes(20_000), headers=headers, timeout=30)
        assert refused.status_code == 413
        (line,) = server.lines_of(refused.headers["X-Request-ID"], "nginx")
        assert line["trace_id"] == logged


def test_each_request_has_a_span_of_its_own():
    assert len({read_trace(GIVEN).span_id for _ in range(100)}) == 100


@pytest.mark.parametrize(("flags", "sent"), [(0x01, "00"), (0x03, "02"), (0xFF, "02"), (0, "00")])
def test_the_sampled_flag_of_a_client_is_not_passed_on(flags, sent):
    header = Trace(TRACE, PARENT, flags, "1234567890abcdef").headers()["traceparent"]
    assert header == f"00-{TRACE}-1234567890abcdef-{sent}"
    assert read_trace(header)


def test_the_host_of_an_image_gets_the_trace_and_nothing_else_of_the_client(client, gallery):  # noqa: F811
    client.application.extensions["fetcher"] = fetcher(gallery)
    content = {"images": [{"url": at(gallery, f"/to/{at(gallery, '/picture.png')}")}]}
    headers = {"traceparent": GIVEN, "tracestate": "a=b", "baggage": "c=d", "X-Request-ID": "mine"}
    assert client.post("/predict", json=content, headers=headers).status_code == 200
    assert client.post("/predict", json=content).status_code == 200
    traced, redirected, *without = gallery.headers
    assert traced["traceparent"] == redirected["traceparent"]
    assert read_trace(traced["traceparent"]).trace_id == TRACE
    assert read_trace(traced["traceparent"]).parent_id != PARENT
    names = {name.lower() for name in traced}
    assert names <= {"host", "accept", "user-agent", "traceparent", "accept-encoding", "connection"}
    assert [each["traceparent"] for each in without] == [None, None]
