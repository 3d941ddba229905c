"""A rule is renamed as long as nobody looks into its links by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.connectors.errors import ConfigurationError
from apps.engine.spec import FieldMappingSpec
from apps.rules.services import save_rule
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db


def test_a_rule_that_others_link_by_keeps_its_name(tmp_path: Path):
    people = Pair(tmp_path, name="people", fields=PLAIN_FIELDS)
    linking = FieldMappingSpec(right="full_name", to_right="link('people', id)")
    other = Pair(tmp_path, name="other", fields=[PLAIN_FIELDS[0], linking])

    people.rule.name = "persons"
    with pytest.raises(ConfigurationError) as caught:
        save_rule(people.rule, [], actor=None)
    assert "link('people') is used by other" in caught.value.message
    assert "name" in str(caught.value)

    other.rule.name = "others"
    save_rule(other.rule, [], actor=None)
    people.rule.refresh_from_db()
    assert people.rule.name == "people"
