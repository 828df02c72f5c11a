"""`vif extract` on a folder of plain images."""

import vif
import numpy as np
import pytest
import torch
from PIL import Image
from vif.cli import main
from vif.features import FeatureTable

from tests.tiny import CONFIGS, TINY, tiny_cfg

