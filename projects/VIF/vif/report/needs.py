"""Libraries that only reports and pictures use."""

import importlib.util

from ..errors import ConfigError

PACKAGES = {"matplotlib": "matplotlib", "sklearn": "scikit-learn", "jinja2": "jinja2", "PIL": "pillow"}


def require(*modules: str) -> None:
    """Refuse to begin without these modules.

    Raises:
        ConfigError: says what to install.
    """
    missing = [PACKAGES[name] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"this command draws, which needs `pip install {' '.join(missing)}`.")
