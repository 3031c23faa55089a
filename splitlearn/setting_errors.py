"""How programs say which of their settings is refused: ``NAME=VALUE: limit; remedy``, secrets left out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

_SECRET_WORDS = ("secret", "token", "key", "password", "invitation")
_MAX_SHOWN = 80  # characters of a value
_REMEDY = "correct it, or leave it unset for its default"


def setting_sentences(error: ValidationError, settings: type[BaseModel]) -> list[str]:
    """Return one sentence for each setting that was refused.

    A value is shown unless it may be a secret: by its field's type, by a word in its name, or as an address
    with somebody's name and password. Of another class's error no value is shown at all.

    Args:
        error: What making the settings raised.
        settings: Their class, whose ``env_prefix`` begins the names.
    """
    prefix = str(settings.model_config.get("env_prefix", ""))
    fields = settings.model_fields if error.title == settings.__name__ else {}
    details = error.errors(include_url=False, include_context=False)
    return [_sentence(detail, prefix, fields) for detail in details]


def _sentence(detail: Mapping[str, Any], prefix: str, fields: Mapping[str, FieldInfo]) -> str:
    said = str(detail["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)
    if not detail["loc"]:  # of several together: the sentence names them
        return f"{said}; correct the settings {prefix}..."
    field = "_".join(str(part) for part in detail["loc"])
    name, is_secret = _known(field, prefix, fields)
    if detail["type"] == "missing":
        return f"{name} is not set; set it"
    value = str(detail["input"])
    if is_secret or any(_has_userinfo(part) for part in value.split(",")):
        for part in (value, *value.split(",")):
            said = said.replace(repr(part), "it").replace(part, "it") if part else said
        shown = name
    else:
        shown = f"{name}={value[:_MAX_SHOWN]}"
    return f"{shown}: {said}" if ";" in said else f"{shown}: {said}; {_REMEDY}"


def _known(field: str, prefix: str, fields: Mapping[str, FieldInfo]) -> tuple[str, bool]:
    """Return the name that a field, as an error names it, is set by, and whether it may hold a secret."""
    for key, info in fields.items():
        alias = info.validation_alias
        name = alias if isinstance(alias, str) else prefix + key.upper()
        if field in (key, alias):
            by_type = any(secret.__name__ in str(info.annotation) for secret in (SecretStr, SecretBytes))
            return name, by_type or any(word in name.lower() for word in _SECRET_WORDS)
    return prefix + field.upper(), True


def _has_userinfo(text: str) -> bool:
    try:
        return "@" in urlsplit(text.strip()).netloc
    except ValueError:
        return "@" in text
