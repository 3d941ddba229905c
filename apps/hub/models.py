"""Datasets that Lockstep hosts, their records, and the replicas that keep copies of them.

A hosted dataset is known to all other rooms by its name, as a dataset of a source of the hub.
"""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from apps.core.clock import new_id
from apps.core.fields import SealedField
from apps.core.models import BaseModel
from apps.engine.spec import EditDelete

KEY_LENGTH = 255
SCOPE_LENGTH = 32


class HostedDataset(BaseModel):
    """A dataset whose records Lockstep itself keeps, for client apps to push to and pull from."""

    class Deletes(models.TextChoices):
        DELETE = EditDelete.DELETE.value, "The record stays deleted, the edit is kept aside"
        EDIT = EditDelete.EDIT.value, "The record comes back"
        ASK = EditDelete.ASK.value, "Somebody decides"

    name = models.CharField(max_length=255, unique=True)
    key = models.JSONField(default=list, editable=False)  # names of the fields
    scope_field = models.CharField(
        max_length=255,
        blank=True,
        help_text="Accounts see only the records that hold one of their values in this field. "
        "Empty: all records.",
    )
    schema_number = models.PositiveIntegerField(default=1, editable=False)
    oldest_schema = models.PositiveIntegerField(default=1, editable=False)  # that clients may have
    edit_delete = models.CharField(
        "where one edits what another deletes",
        max_length=6,
        choices=Deletes.choices,
        default=Deletes.DELETE,
    )
    tombstone_days = models.PositiveIntegerField(
        default=90,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="So long a replica may be away and still be told what was deleted.",
    )
    history_days = models.PositiveIntegerField(
        default=90,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="So long former values are kept, which edits made offline are merged with.",
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        verbose_name = "hub dataset"
        default_permissions = ("add", "change", "view")
        permissions = [
            ("pull_hosteddataset", "Can pull the records of a hub dataset"),
            ("push_hosteddataset", "Can push to a hub dataset"),
        ]

    def __str__(self) -> str:
        return self.name


class SchemaVersion(BaseModel):
    """A JSON Schema that a dataset has, or had; never changed."""

    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    schema = models.JSONField()
    breaks = models.JSONField(default=list)  # why clients of the one before cannot go on
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-number"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["hosted", "number"], name="one_schema_per_number")
        ]

    def __str__(self) -> str:
        return f"{self.hosted}, schema {self.number}"


class Sequence(models.Model):
    """The counter of a dataset: whoever commits a write has taken its numbers last of all.

    So all up to a number that can be read are committed. Its row is held from then to the commit.
    """

    hosted = models.OneToOneField(
        HostedDataset, on_delete=models.CASCADE, primary_key=True, related_name="sequence"
    )
    last = models.BigIntegerField(default=0)
    forgotten = models.BigIntegerField(default=0)  # deletions up to it may be forgotten

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.last}"


class HostedRecord(models.Model):
    """A record as it is now; deleted, it stays for a while as a tombstone, with what it was.

    revision: its number in the sequence of its dataset, from its last write. The record is in
    `body`, or sealed where the dataset has personal fields.
    """

    id = models.BigAutoField(primary_key=True)
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="records")
    key = models.CharField(max_length=KEY_LENGTH)
    revision = models.BigIntegerField()
    is_deleted = models.BooleanField(default=False)
    scope = models.CharField(max_length=SCOPE_LENGTH, blank=True)  # `bodies.scope_name`
    body = models.TextField(null=True)  # NULL: it is sealed
    sealed_body = SealedField(null=True, place="hub record|{hosted_id}|{key}")
    clocks = models.JSONField(default=dict)  # stamp of each field; "": of all others
    digest = models.BigIntegerField()  # 60 bits of a hash of key and record
    changed_at = models.DateTimeField()

    class Meta:
        default_permissions = ("view",)
        verbose_name = "hub record"
        constraints = [
            models.UniqueConstraint(fields=["hosted", "key"], name="one_hub_record_per_key"),
            models.UniqueConstraint(fields=["hosted", "revision"], name="one_record_per_revision"),
        ]
        indexes = [
            models.Index(fields=["hosted", "scope", "revision"], name="hub_record_by_scope"),
            models.Index(
                fields=["hosted", "changed_at"],
                condition=Q(is_deleted=True),
                name="hub_tombstone",
            ),
        ]

    def __str__(self) -> str:
        return self.key


class ScopeExit(models.Model):
    """A record has left a scope: whoever sees that scope only has to drop it."""

    id = models.BigAutoField(primary_key=True)
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=KEY_LENGTH)
    scope = models.CharField(max_length=SCOPE_LENGTH)
    revision = models.BigIntegerField()
    left_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["hosted", "key", "scope"], name="one_exit_per_scope")
        ]
        indexes = [models.Index(fields=["hosted", "scope", "revision"], name="hub_exit_by_scope")]

    def __str__(self) -> str:
        return f"{self.key} left {self.scope}"


class Revision(models.Model):
    """What a write changed: the values before, from which earlier versions are put together."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=KEY_LENGTH)
    revision = models.BigIntegerField()
    previous = models.BigIntegerField(null=True)  # NULL: there was no record
    operation = models.CharField(max_length=6)
    fields = models.JSONField(default=list)  # names of those that were changed
    before = models.TextField(null=True)  # NULL: it is sealed
    sealed_before = SealedField(null=True, place="hub revision|{id}")
    replica = models.ForeignKey("Replica", null=True, on_delete=models.SET_NULL, related_name="+")
    mutation = models.BigIntegerField(null=True)  # of the replica
    run_lock = models.CharField(max_length=200, blank=True)  # of a rule that wrote it
    made_at = models.DateTimeField()

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["hosted", "revision"], name="one_write_per_revision")
        ]
        indexes = [
            models.Index(fields=["hosted", "key", "revision"], name="hub_revisions_of_record"),
            models.Index(fields=["replica", "mutation"], name="hub_revision_of_mutation"),
            models.Index(fields=["hosted", "made_at"], name="hub_revision_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.revision}"


class RowScope(BaseModel):
    """Which records of a dataset with a scope field an account sees."""

    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="row_scopes")
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    every = models.BooleanField("all records", default=False)
    values = models.JSONField(default=list, blank=True)  # texts

    class Meta:
        ordering = ["hosted__name", "account__username"]
        verbose_name = "account's records"
        verbose_name_plural = "accounts' records"
        default_permissions = ("add", "change", "view")
        constraints = [
            models.UniqueConstraint(fields=["hosted", "account"], name="one_row_scope_per_account")
        ]

    def __str__(self) -> str:
        return f"{self.account} in {self.hosted}"


class ScopeSet(models.Model):
    """Scopes that a token stands for, by their digest."""

    digest = models.CharField(max_length=32, primary_key=True)
    values = models.JSONField()
    used_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.digest


class Replica(BaseModel):
    """One installation of a client app that keeps a copy of hub datasets."""

    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="replicas"
    )
    client_id = models.UUIDField(help_text="Chosen by the app when it is installed.")
    name = models.CharField(max_length=100, blank=True)
    app_version = models.CharField(max_length=60, blank=True)
    last_seen_at = models.DateTimeField(null=True, editable=False)
    skew = models.BigIntegerField(null=True, editable=False)  # milliseconds, ahead of us
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-last_seen_at"]
        default_permissions = ("view",)
        permissions = [("revoke_replica", "Can take the access of a replica back")]
        constraints = [
            models.UniqueConstraint(fields=["account", "client_id"], name="one_replica_per_client")
        ]

    def __str__(self) -> str:
        return self.name or str(self.client_id)[:8]


class ReplicaProgress(models.Model):
    """How far a replica is with one dataset."""

    id = models.BigAutoField(primary_key=True)
    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="progress")
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="progress")
    last_mutation = models.BigIntegerField(default=0)
    pulled = models.BigIntegerField(null=True)  # revision up to which it has asked
    schema_number = models.PositiveIntegerField(null=True)
    seen_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["hosted__name"]
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["replica", "hosted"], name="one_progress_per_dataset")
        ]

    def __str__(self) -> str:
        return f"{self.replica}: {self.hosted}"


class Mutation(BaseModel):
    """An edit of a replica that was not simply applied, and the values that did not get through."""

    class Status(models.TextChoices):
        MERGED = "merged", "Merged"
        CONFLICT = "conflict", "Conflict"
        REJECTED = "rejected", "Rejected"

    class State(models.TextChoices):
        OPEN = "open", "Waits for a person"
        DECIDED = "decided", "Decided"
        NONE = "", "Nothing to decide"

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="mutations")
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="mutations")
    number = models.BigIntegerField()
    key = models.CharField(max_length=KEY_LENGTH)
    status = models.CharField(max_length=8, choices=Status.choices)
    state = models.CharField(max_length=7, choices=State.choices, blank=True, default=State.NONE)
    code = models.CharField(max_length=60, blank=True)
    message = models.CharField(max_length=500, blank=True)
    fields = models.JSONField(default=list)  # names of those that did not get through
    wants_delete = models.BooleanField(default=False)
    kept = models.TextField(null=True)  # their values; NULL: sealed, or none
    sealed_kept = SealedField(null=True, place="hub mutation|{id}")
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "edit set aside"
        verbose_name_plural = "edits set aside"
        default_permissions = ("view",)
        permissions = [("decide_mutation", "Can decide conflicts of pushed edits")]
        constraints = [
            models.UniqueConstraint(
                fields=["replica", "hosted", "number"], name="one_outcome_per_mutation"
            )
        ]
        indexes = [
            models.Index(
                fields=["hosted", "-id"], condition=Q(state="open"), name="open_push_conflict"
            )
        ]

    def __str__(self) -> str:
        return f"{self.key}, edit {self.number}"


class Ticket(models.Model):
    """Opens one stream of events in a browser, once and soon. Its text is not kept."""

    digest = models.CharField(max_length=64, primary_key=True)  # SHA-256 of the text
    hosted = models.ForeignKey(HostedDataset, on_delete=models.CASCADE, related_name="+")
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.digest[:8]
