"""Do the intervals hold what they say? Worlds with user effects, many rows a user, replicated; no model is trained.

    python benchmarks/coverage.py --replicas 2000 --jobs 2

Each replica is 400 users drawn anew with 25 exposures each on average. A user's taste moves scores, clicks and
conversions, so rows of one user are alike. Two systems score by the features; a seed of a system tilts its score
towards a feature and adds a number a user, as trained embeddings do. An interval passes when the exact 99.9 %
binomial (Clopper-Pearson) interval of its coverage contains the nominal 0.95. The twin treats rows as independent and
must fail. The true values come from `--population` users with the true probabilities as soft labels, over seeds by
Gauss-Hermite quadrature.
"""

from __future__ import annotations

from coverage_worlds import coverage, report

if __name__ == "__main__":
    report(coverage, __doc__)
