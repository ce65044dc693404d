"""Settings are one table and are read strictly."""

import dataclasses
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import PREFIX, Settings, format_shell, format_table, table_rows
from app.system.machine import count_cores
from tests.helpers import ROOT


def test_an_empty_environment_gives_the_defaults():
    settings = Settings.from_env({"PATH": "/bin"})
    assert settings.max_queue == 128
    assert settings.max_batch is None
    assert settings.models == ROOT / "models"
    assert settings.workers is None
    assert settings.exif_rotate is False


def test_values_are_read_in_their_types():
    settings = Settings.from_env(
        {
            "SERVING_WORKERS": "3",
            "SERVING_MAX_WAIT_MS": "2.5",
            "SERVING_EXIF_ROTATE": "on",
            "SERVING_MODELS": "/srv/models",
            "SERVING_DEVICE": "cuda:1",
        }
    )
    assert (settings.workers, settings.max_wait_ms, settings.exif_rotate) == (3, 2.5, True)
    assert str(settings.models) == "/srv/models"
    assert settings.environ["SERVING_WORKERS"] == "3"


def test_all_invalid_settings_are_reported_at_once_with_name_value_and_limit():
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {"SERVING_MAX_BATCH": "0", "SERVING_DEVICE": "tpu", "SERVING_TYPO": "1", "HOME": "/"}
        )
    text = str(caught.value)
    assert "SERVING_TYPO is not a setting" in text
    assert "SERVING_MAX_BATCH='0': expected a whole number from 1 to 256" in text
    assert "SERVING_DEVICE='tpu': expected auto, cpu, cuda or cuda:N" in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "many"),
        ("WORKERS", "65"),
        ("WORKERS", ""),
        ("MAX_WAIT_MS", "-1"),
        ("MAX_WAIT_MS", "nan"),
        ("DEADLINE_S", "31"),
        ("MAX_BODY_MB", "33"),
        ("EXIF_ROTATE", "yes"),
        ("LOG_LEVEL", "debug"),
        ("MODEL", "../etc"),
        ("MODEL", ".hidden"),
        ("DEVICE", "cuda:x"),
        ("PRECISION", "int4"),
        ("ENGINE", "onnx"),
        ("MEMORY_RESERVE_PERCENT", "95"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("DIRECT_PORT", "all"),
        ("HOST", ""),
        ("HOST", "localhost"),
        ("HOST", "127.0.0.1;8080"),
    ],
)
def test_a_value_outside_its_range_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"SERVING_{name}="):
        Settings.from_env({PREFIX + name: value})


def test_ports_addresses_and_the_runtime_folder_are_settings(settings):
    chosen = settings(run="run2", port="9000", direct_port="10087", host="::, 127.0.0.1")
    assert chosen.listen == ("[::]:9000", "127.0.0.1:9000")
    assert chosen.url == "http://[::1]:9000"
    assert chosen.direct_port == 10087
    assert chosen.run == ROOT / "run2"
    assert chosen.cache == ROOT / "run2" / "cache", "a server's cache lies in its runtime folder"
    assert settings(run="run2", cache="/srv/cache").cache == Path("/srv/cache")
    defaults = Settings.from_env({})
    assert defaults.url == "http://127.0.0.1:8999"
    assert defaults.cache == ROOT / "run" / "cache"


def test_shell_scripts_get_quoted_values_with_absolute_paths(settings):
    lines = format_shell(settings(run="/tmp/my run")).splitlines()
    assert "SERVING_RUN='/tmp/my run'" in lines
    assert "LOCAL_HOST=127.0.0.1" in lines


def test_cores_are_at_least_one():
    assert count_cores() >= 1


def test_the_table_has_a_row_with_help_for_every_setting():
    table = format_table()
    for field in table_rows():
        assert f"| `{PREFIX}{field.name.upper()}` |" in table
        assert len(field.metadata["help"]) > 10


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.from_env({}).max_batch = 3


def test_a_model_name_may_use_any_script(settings):
    assert settings(model="叶子").model == "叶子"
    for wrong in ("a/b", ".hidden", "a\nb", "a" * 201):
        with pytest.raises(SettingsError, match="SERVING_MODEL"):
            settings(model=wrong)
