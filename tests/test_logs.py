"""Logs: one JSON object a line."""

import json
import logging
import logging.config
import sys

from app.logs import JsonFormatter, logging_config, request_id


def line(**changes) -> dict:
    record = logging.LogRecord("app.x", logging.INFO, "x.py", 1, "%s came", ("it",), None)
    record.__dict__.update(changes)
    return json.loads(JsonFormatter().format(record))


def test_a_line_is_json_with_time_level_logger_message_and_pid():
    written = line()
    assert (written["message"], written["level"], written["logger"]) == ("it came", "INFO", "app.x")
    assert written["time"].endswith("+00:00")
    assert "request_id" not in written


def test_a_line_within_a_request_has_its_id():
    token = request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
    finally:
        request_id.reset(token)


def test_extra_fields_stand_beside_the_others():
    assert line(fields={"model": "voc"})["model"] == "voc"


def test_a_traceback_stays_within_its_line():
    try:
        raise ValueError("boom\nboom")
    except ValueError:
        written = line(exc_info=sys.exc_info())
    assert "ValueError: boom" in written["traceback"]


def test_what_json_does_not_know_is_written_as_text():
    assert line(fields={"path": object})["path"] == "<class 'object'>"


def test_the_configuration_is_one_that_logging_takes():
    config = logging_config("WARNING")
    assert config["root"]["level"] == "WARNING"
    logging.config.DictConfigurator(config)
