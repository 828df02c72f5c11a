"""The project's own errors: each message says what happened, where, and what to do."""


class VIFError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(VIFError, ValueError):
    """A config key has a value that cannot work; names the key, the value and what is allowed."""


class DataError(VIFError, ValueError):
    """A data set, image, list or feature file is missing or malformed; names the file."""


class EvaluationError(VIFError, ValueError):
    """A protocol cannot be scored: no valid query, an empty side, mismatched lengths, NaN features."""


class ExportError(VIFError, RuntimeError):
    """An exported file cannot be written, or gives other features than the network; names it."""
