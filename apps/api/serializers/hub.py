"""What replicas of hub datasets send and get."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from rest_framework import serializers

from apps.api.sparse import Shown
from apps.hub.merging import Edit
from apps.hub.models import KEY_LENGTH, Replica, ReplicaProgress
from apps.hub.pulling import MOST

MOST_MUTATIONS = 1_000
_BIGGEST = 2**53 - 1  # what every client can count to


class HubMutation(BaseModel):
    """An edit of one record, as the replica has made it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    mid: int = Field(ge=1, le=_BIGGEST, description="1, 2, 3, … of this replica in this dataset.")
    id: str = Field(min_length=1, max_length=KEY_LENGTH, description="Of the record.")
    base_rev: int | None = Field(
        None,
        ge=0,
        le=_BIGGEST,
        description="`rev` of the record that was edited; none: it is new.",
    )
    set: dict[str, Any] = Field({}, description="Values by field; null takes a value away.")
    increment: dict[str, int | float | str] = Field({}, description="Added to numbers.")
    add: dict[str, list[Any]] = Field({}, description="Members put into lists.")
    remove: dict[str, list[Any]] = Field({}, description="Members taken out of lists.")
    delete: bool = Field(False, description="The record is deleted.")
    base: dict[str, Any] = Field(
        {}, description="Values before the edit, where they are not those of `base_rev`."
    )
    hlc: str = Field(
        "", pattern="^([0-9a-f]{16})?$", description="When: milliseconds × 65,536 + a counter."
    )

    def edit(self) -> Edit:
        return Edit(
            number=self.mid,
            key=self.id,
            base_revision=self.base_rev,
            assigned=self.set,
            increments=self.increment,
            added=self.add,
            removed=self.remove,
            is_delete=self.delete,
            base=self.base,
            stamp=self.hlc,
        )


class HubPush(BaseModel):
    """Edits in their order."""

    model_config = ConfigDict(extra="forbid")

    replica: UUID
    schema_version: int | None = Field(None, ge=1, le=2**31 - 1)
    mutations: list[HubMutation] = Field(min_length=1, max_length=MOST_MUTATIONS)


class NewReplica(BaseModel):
    """What an app says of itself."""

    model_config = ConfigDict(extra="forbid")

    client_id: UUID
    name: str = Field("", max_length=100)
    app_version: str = Field("", max_length=60)


class ChangesQuery(serializers.Serializer):
    """Which page of changes."""

    since = serializers.CharField(
        required=False,
        default="",
        max_length=2_000,
        help_text="`next` of the page before. Without: the first page of a new copy.",
    )
    limit = serializers.IntegerField(
        required=False, default=1_000, min_value=1, max_value=MOST, help_text="Changes a page."
    )
    replica = serializers.UUIDField(required=False, help_text="Who asks, for those who look after.")
    schema_version = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="What the client knows."
    )


class DigestQuery(serializers.Serializer):
    """The digest of what, beside what one sees."""

    since = serializers.CharField(
        required=False, default="", max_length=2_000, help_text="`next` of the last page."
    )


class HubChange(serializers.Serializer):
    """A record as it is now, or that it is gone."""

    id = serializers.CharField()
    rev = serializers.IntegerField()
    op = serializers.ChoiceField(
        choices=["put", "delete", "leave"],
        help_text="leave: the record is not one of those that you see any more.",
    )
    data = serializers.DictField(required=False, help_text="Of `put`: the whole record.")


class HubChanges(serializers.Serializer):
    """A page of changes."""

    changes = HubChange(many=True)
    next = serializers.CharField(help_text="`since` of the next page.")
    has_more = serializers.BooleanField(help_text="Ask again at once.")
    reset = serializers.BooleanField(help_text="A new copy begins with this page.")
    schema_version = serializers.IntegerField(help_text="Of the records.")


class HubOutcome(serializers.Serializer):
    """What came of a mutation."""

    mid = serializers.IntegerField()
    status = serializers.ChoiceField(choices=["applied", "merged", "conflict", "rejected"])
    rev = serializers.IntegerField(allow_null=True, help_text="Of the record; null: there is none.")
    record = serializers.DictField(
        required=False,
        allow_null=True,
        help_text="Unless applied: the record as it is, null where there is none.",
    )
    code = serializers.CharField(required=False)
    message = serializers.CharField(required=False)
    fields_ = serializers.ListField(child=serializers.CharField(), required=False)

    def get_fields(self) -> dict[str, Any]:
        """`fields` is a word of the framework."""
        found: dict[str, Any] = super().get_fields()
        return {name.removesuffix("_"): field for name, field in found.items()}


class HubPushed(serializers.Serializer):
    """The outcomes, in the order of the mutations."""

    outcomes = HubOutcome(many=True)


class HubDigest(serializers.Serializer):
    """What a copy must come to."""

    count = serializers.IntegerField()
    digest = serializers.CharField()
    up_to_date = serializers.BooleanField(
        allow_null=True, help_text="Whether `since` is as far as what was counted."
    )


class HubTicket(serializers.Serializer):
    """Opens one stream in a browser."""

    ticket = serializers.CharField(help_text="Once, as `?ticket=`.")
    seconds = serializers.IntegerField(help_text="How long it is good for.")


class HubSchema(serializers.Serializer):
    """The schema of a hub dataset."""

    version = serializers.IntegerField()
    oldest_accepted = serializers.IntegerField()
    key = serializers.ListField(child=serializers.CharField())
    schema = serializers.DictField(help_text="JSON Schema.")


class ShownProgress(Shown, serializers.ModelSerializer):
    """How far a replica is with a dataset."""

    dataset = serializers.CharField(source="hosted.name")
    lag = serializers.SerializerMethodField(help_text="Writes that it has not asked for yet.")

    class Meta:
        model = ReplicaProgress
        fields = ("dataset", "last_mutation", "pulled", "lag", "schema_number", "seen_at")

    def get_lag(self, row: ReplicaProgress) -> int | None:
        return None if row.pulled is None else max(row.hosted.sequence.last - row.pulled, 0)


class ShownReplica(Shown, serializers.ModelSerializer):
    """One installation of a client app."""

    account = serializers.CharField(source="account.username")
    progress = ShownProgress(many=True)

    class Meta:
        model = Replica
        fields = (
            "id",
            "client_id",
            "account",
            "name",
            "app_version",
            "last_seen_at",
            "revoked_at",
            "progress",
        )
