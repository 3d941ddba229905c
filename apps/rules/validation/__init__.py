"""What a rule must say so that it can work: refused with a reason, or noted.

`cursors` says which fields can be a cursor, `policies` which conflict policies suit a field,
`sides` what a two-way rule needs of its two datasets and its mapping, `rules.forest` that rules do
not carry records round in a circle.
"""

from apps.rules.forest import require_forest
from apps.rules.validation.cursors import require_cursors
from apps.rules.validation.policies import (
    FIELD_POLICY_WORDS,
    fitting_policies,
    require_policies,
)
from apps.rules.validation.sides import require_sides, two_way_notes

__all__ = [
    "FIELD_POLICY_WORDS",
    "fitting_policies",
    "require_cursors",
    "require_forest",
    "require_policies",
    "require_sides",
    "two_way_notes",
]
