"""Settings: one table, read strictly."""

import dataclasses

import pytest

from app.errors import SettingsError
from app.settings import PREFIX, Settings, count_cores, format_table, table_rows
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


def test_all_faults_are_told_at_once_with_name_value_and_limit():
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
    ],
)
def test_a_value_outside_its_range_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"SERVING_{name}="):
        Settings.from_env({PREFIX + name: value})


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


def test_a_model_may_be_named_in_any_script(settings):
    assert settings(model="叶子").model == "叶子"
    for wrong in ("a/b", ".hidden", "a\nb", "a" * 201):
        with pytest.raises(SettingsError, match="SERVING_MODEL"):
            settings(model=wrong)
