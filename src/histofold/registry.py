"""Classes by name, with options checked against their signatures: what makes `target=border target.width=3` safe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from histofold.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → classes of one kind (targets, decoders); building checks names, option names and plain types."""

    def __init__(self, kind: str, classes: Mapping[str, type[T]]) -> None:
        self.kind = kind
        self.classes = dict(classes)
        # Looked up once: a search builds the same class with hundreds of settings.
        self._hints = {name: get_type_hints(cls) for name, cls in self.classes.items()}

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.classes)

    def find(self, name: str) -> type[T]:
        """The class of a name.

        Raises:
            ConfigError: no such name; the message lists those there are.
        """
        if name not in self.classes:
            raise ConfigError(f"{self.kind}={name}: unknown; expected one of {', '.join(self.names())}")
        return self.classes[name]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Options of a name, as its class's signature has them."""
        return dict(inspect.signature(self.find(name)).parameters)

    def build(self, name: str, **options: Any) -> T:
        """Make the object of a name.

        Raises:
            ConfigError: unknown name or option, or a value of the wrong type.
        """
        known = self.options(name)
        for option, value in options.items():
            if option not in known:
                raise ConfigError(
                    f"{self.kind}.{option}={value}: {self.kind}={name} has no such option; "
                    f"expected one of {', '.join(sorted(known)) or 'none'}"
                )
        hints = self._hints[name]
        checked = {option: self._typed(option, value, hints.get(option)) for option, value in options.items()}
        return self.classes[name](**checked)

    def _typed(self, option: str, value: Any, wanted: Any) -> Any:
        if wanted not in (bool, int, float, str):
            return value
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigError(
                f"{self.kind}.{option}={value!r}: expected {wanted.__name__}, found {type(value).__name__}"
            )
        return value


def require(condition: bool, setting: str, value: Any, expected: str) -> None:
    """Refuse a setting that is out of range.

    Raises:
        ConfigError: `condition` is false.
    """
    if not condition:
        raise ConfigError(f"{setting}={value!r}: expected {expected}")
