"""The audit log."""

from __future__ import annotations

from rest_framework import serializers

from apps.api.sparse import Shown
from apps.audit.models import ActorKind, Outcome
from apps.audit.origin import Channel


class ShownEvent(Shown):
    """One act: who, what, to which object, from where, with what outcome, why, when."""

    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    action = serializers.CharField()
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    actor_kind = serializers.ChoiceField(choices=ActorKind.choices)
    actor_id = serializers.CharField()
    actor = serializers.CharField(source="actor_label")
    object_type = serializers.CharField()
    object_id = serializers.CharField()
    object = serializers.CharField(source="object_label")
    channel = serializers.ChoiceField(choices=Channel.choices)
    address = serializers.CharField()
    request_id = serializers.CharField()
    user_agent = serializers.CharField()
    reason = serializers.CharField()
    details = serializers.DictField()
