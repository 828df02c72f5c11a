"""`python -m vif` is the `vif` command."""

import sys

from .cli import main

sys.exit(main())
