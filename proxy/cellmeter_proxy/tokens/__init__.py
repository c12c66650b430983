"""What a call's tokens are likely to be, where the provider did not say: estimates made offline from its own bytes.

Invariant: any bytes give an estimate, at a bounded cost, with no network; a number that cannot be told is None.
"""

from cellmeter_proxy.tokens.calibration import Calibration, Fit, Key
from cellmeter_proxy.tokens.estimate import HIDDEN_REASONING, Estimate, corrected, estimate, learn

__all__ = ["HIDDEN_REASONING", "Calibration", "Estimate", "Fit", "Key", "corrected", "estimate", "learn"]
