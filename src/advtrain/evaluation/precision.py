"""The precisions that an attack can be crafted in; verdicts are float32's."""

from typing import Literal

AttackPrecision = Literal["float32", "tf32", "bfloat16"]
