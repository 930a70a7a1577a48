"""Do the intervals of the debiased estimates hold what they say, where overlap is right? No model is trained.

    python benchmarks/causal_coverage.py --replicas 2000 --jobs 2

Each replica is 400 users drawn anew with 25 exposures each on average; a user's taste moves clicks and conversions. The
propensity is the true one, at least 0.01, and no floor is set; the predicted CVR is wrong. An interval passes when
the exact 99.9 % binomial interval of its coverage contains 0.95. The naive interval is held against the value over
clicks, which it should cover, and against the value over exposures, which it should miss under selection.
"""

from __future__ import annotations

from causal_worlds import coverage
from coverage_worlds import report

if __name__ == "__main__":
    report(coverage, __doc__)
