"""What every room's tests share: the profile of the property tests and the guard against leaked framework warnings."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from inferd.backends.quiet import be_quiet

be_quiet()  # tests import frameworks by themselves, too

# Examples are few in CI and many in `make fuzz`-like runs; a slow shared machine must not turn a property test red.
settings.register_profile(
    "inferd",
    deadline=None,
    max_examples=int(os.environ.get("INFERD_TEST_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("inferd")
