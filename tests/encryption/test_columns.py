"""Every column of bytes is either a protected value that rotations know, or said to be public."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core import checks
from django.db import models

from apps.core.fields import SealedContentField, SealedField
from apps.encryption.columns import rotated_columns, sealed_columns

PUBLIC = {
    "core.datakey.wrapped": "encrypted by the key-encryption key",
    "core.subjectkey.index": "a keyed hash",
    "accounts.passkey.credential_id": "a name that the device chose",
    "accounts.passkey.public_key": "the half that may be known",
    "audit.auditevent.mac": "a keyed hash",
    "audit.auditseal.event_ids": "random ids",
    "audit.auditseal.root": "a hash over keyed hashes",
    "audit.auditseal.previous_mac": "a keyed hash",
    "audit.auditseal.mac": "a keyed hash",
    "ledger.fieldset.fields_hash": "hash of names of fields",
    "ledger.change.left_hash": "hash of a key that stands beside it",
    "ledger.change.right_hash": "hash of a key that stands beside it",
    "ledger.formervalue.token": "a keyed hash",
    "ledger.formervalue.subject": "a keyed hash",
    "ledger.link.left_hash": "hash of a key that stands beside it",
    "ledger.link.right_hash": "hash of a key that stands beside it",
    "ledger.conflict.left_hash": "hash of a key that stands beside it",
    "ledger.conflict.right_hash": "hash of a key that stands beside it",
    "ledger.conflict.identity_hash": "hash of keys that stand beside it",
    "ledger.rejection.identity_hash": "hash over a key and a code",
    "ledger.segment.left_low": "bounds of keys",
    "ledger.segment.left_high": "bounds of keys",
    "ledger.segment.right_low": "bounds of keys",
    "ledger.segment.right_high": "bounds of keys",
    "ledger.segmentkeys.left": "a Bloom filter over hashes of keys",
    "ledger.segmentkeys.right": "a Bloom filter over hashes of keys",
}
"""Columns of bytes that are meant to be read without a key, and why."""


def binary_columns() -> dict[str, models.Field]:
    return {
        f"{model._meta.label_lower}.{field.name}": field
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if isinstance(field, models.BinaryField)
    }


def test_every_column_of_bytes_is_sealed_or_said_to_be_public():
    public = {
        label for label, field in binary_columns().items() if not isinstance(field, SealedField)
    }

    assert public == set(PUBLIC)


def test_what_is_sealed_says_so_by_its_name():
    named = {
        f"{model._meta.label_lower}.{field.name}"
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if "sealed" in field.name.split("_")
    }
    times = {"audit.auditseal.sealed_at"}

    assert named - times <= {column.label for column in sealed_columns()}


@pytest.mark.parametrize("column", sealed_columns(), ids=lambda column: column.label)
def test_a_place_is_made_of_columns_that_there_are(column):
    assert column.field.place_columns
    rows = column.model._base_manager.values_list(*column.field.place_columns)
    assert str(rows.query)


def test_contents_with_keys_of_their_own_have_those_rotated():
    rotated = {column.label for column in rotated_columns()}
    for column in sealed_columns():
        if isinstance(column.field, SealedContentField):
            label = f"{column.model._meta.label_lower}.{column.field.key_column}"
            assert label in rotated


def test_a_sealed_column_without_a_place_is_an_error_of_the_settings():
    class Careless(models.Model):
        sealed = SealedField()

        class Meta:
            app_label = "tests_of_encryption"

    found = Careless._meta.get_field("sealed").check()

    assert [(one.level, one.id) for one in found] == [(checks.ERROR, "lockstep.E101")]
    del apps.all_models["tests_of_encryption"]
