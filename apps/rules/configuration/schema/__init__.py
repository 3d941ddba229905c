"""The format of a configuration file.

The descriptions here are those of `docs/reference/configuration.schema.json`, which editors read.
Scalars arrive as text (see `reading`), so that `NO` stays a country and `06:00` stays a time.
"""

from apps.rules.configuration.schema.base import (
    ANY_SCALAR,
    DatasetReference,
    LookupName,
    Name,
    ScalarText,
    Section,
    SourceName,
    split_reference,
    wrong,
)
from apps.rules.configuration.schema.document import Document, SyncSection
from apps.rules.configuration.schema.inventory import DatasetSection, LookupSection, SourceSection
from apps.rules.configuration.schema.mapping import (
    EXACT,
    FieldSection,
    MappingSection,
    MatchRule,
    NamingRule,
)
from apps.rules.configuration.schema.rule import (
    CheckSection,
    GuardsSection,
    RulePolicies,
    RuleSection,
    ScheduleSection,
)
from apps.rules.configuration.schema.two_way import FieldPolicySection, TwoWaySection

__all__ = [
    "ANY_SCALAR",
    "EXACT",
    "CheckSection",
    "DatasetReference",
    "DatasetSection",
    "Document",
    "FieldPolicySection",
    "FieldSection",
    "GuardsSection",
    "LookupName",
    "LookupSection",
    "MappingSection",
    "MatchRule",
    "Name",
    "NamingRule",
    "RulePolicies",
    "RuleSection",
    "ScalarText",
    "ScheduleSection",
    "Section",
    "SourceName",
    "SourceSection",
    "SyncSection",
    "TwoWaySection",
    "split_reference",
    "wrong",
]
