"""The errors that a user can cause and mend: one line each, with the exit code that the command line gives."""

from __future__ import annotations


class HistofoldError(Exception):
    """Something went wrong that a person can mend; the message says what, where and how."""

    exit_code = 1


class ConfigError(HistofoldError):
    """A setting is unknown, of the wrong type, or out of range."""

    exit_code = 2


class DataError(HistofoldError):
    """A file is missing, broken, or does not fit the others."""


class ResourceError(HistofoldError):
    """Memory, disk or time would not suffice."""
