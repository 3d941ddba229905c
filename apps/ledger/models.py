"""Record memory: what was planned and applied, what belongs together, what was kept out.

Rows name runs, partitions and rules by id, without foreign keys: this room does not know the
rooms above. Images are sealed (`core.protected`); keys are canonical key texts of the engine.

What people see of changes, conflicts and rejections passes their `mask`, which `selectors.masked`
sets: rows are handed to faces by it. Services read the rows themselves, in clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from django.db import models
from django.db.models import Q

from apps.core.clock import new_id, now
from apps.core.fields import SealedContentField, SealedField, SubjectIndexField
from apps.core.models import BaseModel
from apps.core.protected import (
    ErasedValueError,
    Sealer,
    seal,
    seal_json,
    unseal,
    unseal_json,
)
from apps.mappings.masking import CLEAR, MASKED, Mask

ERASED = "erased with the person whom it was about"
NO_RECORD = "null"  # the JSON image of a record that is not there


Image = dict[str, str | None]
"""A record as canonical texts by field."""


class Operation(models.TextChoices):
    INSERT = "insert", "Insert"
    UPDATE = "update", "Update"
    DELETE = "delete", "Delete"


class Side(models.TextChoices):
    LEFT = "left", "Left"
    RIGHT = "right", "Right"


class FieldSet(models.Model):
    """Fields that changes of a rule write together: a change names its set, so that the changes
    of one field are found by index."""

    id = models.BigAutoField(primary_key=True)
    rule_id = models.UUIDField()
    fields = models.TextField()  # JSON list, of the side that is written to
    fields_hash = models.BinaryField(max_length=16)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rule_id", "fields_hash"], name="one_field_set")
        ]

    def __str__(self) -> str:
        return self.fields

    @property
    def names(self) -> list[str]:
        names: list[str] = orjson.loads(self.fields)
        return names


class Change(models.Model):
    """One record's planned or applied difference: the row shelf.

    Changes on the segment shelf become instances, too (`segments.changes`); these bring what is
    sealed here along in clear, as `opened`.
    """

    class Outcome(models.TextChoices):
        PLANNED = "planned", "Planned"
        APPLIED = "applied", "Applied"
        STALE = "stale", "Moved meanwhile"
        REJECTED = "rejected", "Refused by the target"
        SKIPPED = "skipped", "Not approved"
        IN_DOUBT = "in_doubt", "Nobody knows whether it was written"

    class Cause(models.TextChoices):
        NEW = "new", "New record"
        CHANGED = "changed", "Values differ"
        MERGED = "merged", "Both sides changed, merged"
        OVERRULED = "overruled", "Both sides changed, this side lost"
        DELETED = "deleted", "Deleted on the other side"
        LEFT_FILTER = "left_filter", "Left the filter"
        MARKED = "marked", "Marked as deleted"
        REVIVED = "revived", "Edited on the other side, deleted here"
        DECIDED = "decided", "A person decided a conflict"
        UNDONE = "undone", "An earlier change was undone"

    id = models.BigAutoField(primary_key=True)
    run_id = models.UUIDField()
    partition_id = models.UUIDField()
    rule_id = models.UUIDField()
    sequence = models.PositiveIntegerField()  # within the partition
    side = models.CharField(max_length=5, choices=Side.choices, default=Side.RIGHT)
    operation = models.CharField(max_length=6, choices=Operation.choices)
    cause = models.CharField(max_length=12, choices=Cause.choices)
    left_key = models.TextField(blank=True)  # empty: not known, or assigned on insert
    right_key = models.TextField(blank=True)  # likewise
    key_after = models.TextField(blank=True)  # where the change moves its side's key itself
    left_hash = models.BinaryField(max_length=16, null=True)  # of the left key
    right_hash = models.BinaryField(max_length=16, null=True)  # of the right key
    field_set = models.ForeignKey(
        FieldSet, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    # Image before, line feed, image after; patch to the link's base: left, line feed, right.
    sealed_images = SealedField(null=True, place="change|{partition_id}|{sequence}")
    sealed_base = SealedField(null=True, place="change|{partition_id}|{sequence}|base")
    image = models.CharField(max_length=32, blank=True)  # hash of the whole record afterwards
    outcome = models.CharField(max_length=8, choices=Outcome.choices, default=Outcome.PLANNED)
    code = models.CharField(max_length=60, blank=True)
    # It may quote a value.
    sealed_message = SealedField(null=True, place="change|{partition_id}|{sequence}|message")
    planned_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["partition_id", "sequence"], name="change_sequence")
        ]
        indexes = [
            models.Index(fields=["run_id", "id"], name="change_by_run"),
            models.Index(fields=["rule_id", "field_set", "planned_at"], name="change_by_field"),
            models.Index(fields=["planned_at"], name="change_by_age"),
            models.Index(fields=["rule_id", "right_hash", "id"], name="change_by_right"),
            models.Index(fields=["rule_id", "left_hash", "id"], name="change_by_left"),
        ]

    opened: Opened | None = None
    mask: Mask = CLEAR

    def __str__(self) -> str:
        return f"{self.operation} {self.right_key or self.left_key}"

    @property
    def field_names(self) -> list[str]:
        """The fields that it writes, of its side."""
        return self.field_set.names

    @property
    def key_now(self) -> str:
        """The key on the side it is written to, once the change is applied."""
        known = self.left_key if self.side == Side.LEFT else self.right_key
        return self.key_after or known

    @staticmethod
    def identity(partition_id: object, sequence: int) -> str:
        """What a change's sealed images are bound to."""
        return f"change|{partition_id}|{sequence}"

    @property
    def message(self) -> str:
        """Why it was not applied, for people."""
        if self.mask.is_clear:
            return self._message
        before, after = self.images_in_clear()
        return self.mask.text(self._message, "", (before, self.side), (after, self.side))

    @property
    def _message(self) -> str:
        if self.opened is not None:
            return self.opened.message
        if not self.sealed_message:
            return ""
        identity = self.identity(self.partition_id, self.sequence)
        return unseal(self.sealed_message, f"{identity}|message").decode()

    def images(self) -> tuple[Image | None, Image | None]:
        """Before and after, as canonical texts by field of its side."""
        before, after = self.images_in_clear()
        return self.mask.image(before, self.side), self.mask.image(after, self.side)

    def images_in_clear(self) -> tuple[Image | None, Image | None]:
        """The same whatever the mask: for writing, never for showing."""
        before, after = self.image_texts()
        return _image(before), _image(after)

    def image_texts(self) -> tuple[str, str]:
        """Before and after as JSON; empty where there is no image."""
        if self.opened is not None:
            return self.opened.before, self.opened.after
        if not self.sealed_images:
            return "", ""
        return open_images(self.sealed_images, self.identity(self.partition_id, self.sequence))

    def base(self) -> tuple[str, str]:
        """The patch to the link's base, left and right (JSON); empty where there is none."""
        left, right = self._base()
        return _masked_text(left, self.mask), _masked_text(right, self.mask)

    def _base(self) -> tuple[str, str]:
        if self.opened is not None:
            return self.opened.base_left, self.opened.base_right
        if not self.sealed_base:
            return "", ""
        identity = self.identity(self.partition_id, self.sequence)
        return open_images(self.sealed_base, f"{identity}|base")


@dataclass(frozen=True, slots=True)
class Opened:
    """What the row shelf seals change by change, in clear; texts are empty where there is none."""

    before: str
    after: str
    base_left: str
    base_right: str
    message: str


def _masked_text(text: str, mask: Mask) -> str:
    """A view or record (JSON, by right field) with its personal values masked."""
    if mask.is_clear or not text:
        return text
    return orjson.dumps(mask.image(_image(text), Side.RIGHT)).decode()


def _image(text: str) -> Image | None:
    image: Image | None = orjson.loads(text) if text else None
    return image


class Segment(models.Model):
    """The segment shelf: many changes of one rule as one sealed Parquet file, and its manifest.

    Bounds are of the key texts (their first 64 bytes), to leave segments out that cannot hold a
    record; `SegmentKeys` leaves out nearly all others.
    """

    id = models.BigAutoField(primary_key=True)
    identity = models.UUIDField(default=new_id)  # what the content is bound to
    rule_id = models.UUIDField()
    rows = models.PositiveIntegerField()
    size = models.PositiveIntegerField()  # bytes of the content
    field_sets = models.JSONField(default=list)  # ids of `FieldSet`
    left_low = models.BinaryField(max_length=64, null=True)
    left_high = models.BinaryField(max_length=64, null=True)
    right_low = models.BinaryField(max_length=64, null=True)
    right_high = models.BinaryField(max_length=64, null=True)
    planned_from = models.DateTimeField()
    planned_to = models.DateTimeField()
    compacted = models.BooleanField(default=False)  # outcomes stand in the content
    linked = models.BooleanField(default=False)  # its applied inserts are links of the rule
    crossed = models.BooleanField(default=True)  # some record has different keys on its sides
    created_at = models.DateTimeField(default=now)

    class Meta:
        indexes = [
            models.Index(fields=["rule_id", "planned_to"], name="segment_by_rule"),
            models.Index(fields=["planned_to"], name="segment_by_age"),
            models.Index(fields=["rule_id"], condition=Q(linked=True), name="segment_of_links"),
        ]

    def __str__(self) -> str:
        return f"segment {self.pk}"


class SegmentPart(models.Model):
    """What a segment holds of one partition's plan: a run of sequences, and how far it has come.

    settled_through: up to this sequence every change has an outcome: that of its row on the row
    shelf, else that in the content, else applied.
    """

    id = models.BigAutoField(primary_key=True)
    segment = models.ForeignKey(Segment, on_delete=models.CASCADE, related_name="parts")
    rule_id = models.UUIDField()
    run_id = models.UUIDField()
    partition_id = models.UUIDField()
    first_sequence = models.PositiveIntegerField()
    last_sequence = models.PositiveIntegerField()
    first_id = models.BigIntegerField(default=0)  # ids of its changes
    last_id = models.BigIntegerField(default=0)
    rows = models.PositiveIntegerField()
    counts = models.JSONField(default=dict)  # "side operation cause outcome" -> number
    settled_through = models.PositiveIntegerField(default=0)
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["partition_id", "first_sequence", "segment"], name="segment_part"
            )
        ]
        indexes = [
            models.Index(fields=["run_id", "first_id"], name="part_by_run"),
            models.Index(fields=["first_id"], name="part_by_change"),
        ]

    def __str__(self) -> str:
        return f"{self.first_sequence} to {self.last_sequence} of {self.partition_id}"


class SegmentContent(models.Model):
    """The sealed file itself, apart from the manifest that is read far more often."""

    segment = models.OneToOneField(Segment, on_delete=models.CASCADE, primary_key=True)
    sealed_key = SealedField(place="segment|{segment__identity}|key")
    content = SealedContentField(place="segment|{segment__identity}", key_column="sealed_key")

    def __str__(self) -> str:
        return f"content of segment {self.segment_id}"


class SegmentKeys(models.Model):
    """Bloom filters over the hashes of the keys of both sides (`segments.bloom`).

    Those of a load are built in the background, by `services.maintain`.
    """

    segment = models.OneToOneField(Segment, on_delete=models.CASCADE, primary_key=True)
    blocks = models.PositiveIntegerField()  # a power of two
    left = models.BinaryField(null=True)  # NULL: the same as `right`
    right = models.BinaryField()

    def __str__(self) -> str:
        return f"keys of segment {self.segment_id}"


def seal_images(before: str | None, after: str | None, identity: str) -> bytes:
    """Seal two images (JSON texts, which hold no line feed) as one value."""
    return seal(f"{before or ''}\n{after or ''}".encode(), identity)


def open_images(sealed: bytes | memoryview, identity: str) -> tuple[str, str]:
    """The two JSON texts again; empty where there is no image."""
    before, _, after = unseal(sealed, identity).decode().partition("\n")
    return before, after


def seal_base(left: str | None, right: str | None, identity: str) -> bytes:
    """Seal the two images of a base (JSON texts; None: no record); one copy where they agree."""
    right_text = "" if left == right else right or NO_RECORD
    return seal_images(left or NO_RECORD, right_text, identity)


def open_base(sealed: bytes | memoryview, identity: str) -> tuple[str | None, str | None]:
    """The left view and the right record of a base; None where there was no record."""
    left, right = open_images(sealed, identity)
    right = right or left
    return (None if left == NO_RECORD else left, None if right == NO_RECORD else right)


class FormerValue(models.Model):
    """A word of a value that a change replaced or removed, as a keyed hash: people find records by
    what they were called, also when they are gone from every platform.

    Of fields that are marked as searchable. See `selectors.words`. It goes with an erasure of the
    person whom the record is about.
    """

    id = models.BigAutoField(primary_key=True)
    token = models.BinaryField(max_length=16)
    rule_id = models.UUIDField(db_index=True)
    change_id = models.BigIntegerField()
    planned_at = models.DateTimeField(db_index=True)  # of the change
    subject = SubjectIndexField(time="planned_at")

    class Meta:
        constraints = [  # the index of the search, too: a word's changes by their time
            models.UniqueConstraint(
                fields=["token", "planned_at", "change_id"], name="one_word_per_change"
            )
        ]
        indexes = [
            models.Index(
                fields=["subject"], condition=Q(subject__isnull=False), name="word_by_subject"
            )
        ]

    def __str__(self) -> str:
        return f"a word of change {self.change_id}"


class Receipt(models.Model):
    """What a batch of writes came to, kept just before its commit and until it is settled.

    It tells whoever takes a lost worker's partition over what the target made of each record, and
    that what has no receipt was never written.
    """

    id = models.BigAutoField(primary_key=True)
    rule_id = models.UUIDField(db_index=True)
    partition_id = models.UUIDField(db_index=True)
    sealed = SealedField(place="receipt|{partition_id}")  # JSON, see `keep_receipt`
    noted_at = models.DateTimeField(default=now)

    def __str__(self) -> str:
        return f"receipt of partition {self.partition_id}"

    @staticmethod
    def identity(partition_id: object) -> str:
        """What its content is bound to."""
        return f"receipt|{partition_id}"


class Link(models.Model):
    """What pairs a left record with a right one, and the base: how both were when they agreed.

    Links have two shelves like changes: these rows, and the applied inserts of segments that are
    `linked`. A row stands over every such insert that has its left or its right key; one whose
    state is `gone` says that there is no link (any more). Read links through
    `ledger.selectors`, which knows both.

    The two images are hashes of the left view and of the right record (see decision 3), empty
    where they are not known or there was no record. A two-way rule keeps both in full as well,
    sealed (`seal_base`).
    """

    class State(models.TextChoices):
        LIVE = "live", "Live"
        MARKED = "marked", "Marked as deleted"
        HELD = "held", "Held after an undo"  # as it is, until a side differs from its image
        GONE = "gone", "No link"  # stands over a link in a segment

    id = models.BigAutoField(primary_key=True)
    rule_id = models.UUIDField()
    left_key = models.TextField()
    right_key = models.TextField()
    left_hash = models.BinaryField(max_length=16)
    right_hash = models.BinaryField(max_length=16)
    left_image = models.CharField(max_length=32, blank=True)
    right_image = models.CharField(max_length=32, blank=True)
    sealed_base = SealedField(null=True, place="link|{rule_id}|{left_key}|{right_key}")
    state = models.CharField(max_length=6, choices=State.choices, default=State.LIVE)
    run_id = models.UUIDField()  # the run that last touched it

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rule_id", "right_hash"], name="one_link_per_right")
        ]
        indexes = [models.Index(fields=["rule_id", "left_hash"], name="link_by_left")]

    def __str__(self) -> str:
        return f"{self.left_key} ↔ {self.right_key}"

    @property
    def has_base(self) -> bool:
        """Whether it keeps how both sides were when they last agreed."""
        return self.sealed_base is not None

    @staticmethod
    def identity(rule_id: object, left_key: str, right_key: str) -> str:
        """What a link's sealed base is bound to."""
        return f"link|{rule_id}|{left_key}|{right_key}"

    def base(self) -> tuple[str | None, str | None]:
        """The left view and the right record (JSON) when they last agreed; None: no record."""
        if not self.sealed_base:
            return None, None
        return open_base(
            self.sealed_base, self.identity(self.rule_id, self.left_key, self.right_key)
        )


class Conflict(BaseModel):
    """A record that waits for a person. One row per rule, pair of keys and kind.

    A run that meets the same conflict again refreshes it; one that does not withdraws it. A
    decision holds for exactly the values that the person saw (`seen`).
    """

    class Kind(models.TextChoices):
        FIELDS = "fields", "Both sides changed the same fields"
        EDIT_DELETE = "edit_delete", "Edited here, deleted there"
        FIRST_CONTACT = "first_contact", "Matched, but they differ"
        MATCH = "match", "More than one record matches"
        UNIQUE = "unique", "A value is taken by another record"
        DELETE = "delete", "A deletion waits for approval"
        IN_DOUBT = "in_doubt", "Nobody knows whether it was written"

    class State(models.TextChoices):
        OPEN = "open", "Open"
        DECIDED = "decided", "Decided, not written yet"
        RESOLVED = "resolved", "Resolved"
        WITHDRAWN = "withdrawn", "No longer a conflict"

    rule_id = models.UUIDField()
    run_id = models.UUIDField()  # the run that last met it
    first_run_id = models.UUIDField()
    partition_id = models.UUIDField(null=True)
    kind = models.CharField(max_length=13, choices=Kind.choices)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    left_key = models.TextField(blank=True)
    right_key = models.TextField(blank=True)
    left_hash = models.BinaryField(max_length=16, null=True)
    right_hash = models.BinaryField(max_length=16, null=True)
    identity_hash = models.BinaryField(max_length=16)  # of kind and both keys
    fields = models.TextField()  # JSON list of the right fields that are open
    seen = models.CharField(max_length=32)  # hash of both sides' values, as shown to people
    # Left view and right record as JSON (NULL: no record), `seal_base`, and for `match` a JSON
    # list of further keys.
    sealed_left = SealedField(null=True, place="conflict|{rule_id}|{identity_hash}|{seen}|left")
    sealed_right = SealedField(null=True, place="conflict|{rule_id}|{identity_hash}|{seen}|right")
    sealed_base = SealedField(null=True, place="conflict|{rule_id}|{identity_hash}|base")
    sealed_candidates = SealedField(
        null=True, place="conflict|{rule_id}|{identity_hash}|candidates"
    )
    left_changed_at = models.DateTimeField(null=True)  # by the sides' own modification times
    right_changed_at = models.DateTimeField(null=True)
    # See `services.decide`.
    sealed_decision = SealedField(null=True, place="conflict|{rule_id}|{identity_hash}|decision")
    decided_seen = models.CharField(max_length=32, blank=True)  # `seen` when it was decided
    decided_by_id = models.BigIntegerField(null=True)
    decided_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=255, blank=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_run_id = models.UUIDField(null=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [("decide_conflict", "Can decide conflicts")]
        constraints = [
            models.UniqueConstraint(fields=["rule_id", "identity_hash"], name="one_conflict")
        ]
        indexes = [
            models.Index(fields=["state", "rule_id", "-created_at"], name="conflict_by_state"),
            models.Index(fields=["rule_id", "left_hash"], name="conflict_by_left"),
            models.Index(fields=["rule_id", "right_hash"], name="conflict_by_right"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.left_key or self.right_key}"

    @property
    def can_be_decided(self) -> bool:
        """Whether there is a choice: a new record whose value is taken cannot get any other one."""
        is_pair = bool(self.left_key and self.right_key)
        return self.kind != self.Kind.UNIQUE or is_pair

    def identity(self, part: str) -> str:
        """What a sealed part (base, candidates, decision) is bound to."""
        return f"conflict|{self.rule_id}|{bytes(self.identity_hash).hex()}|{part}"

    mask: Mask = CLEAR

    def side_identity(self, side: str, seen: str) -> str:
        """What the sealed record of a side is bound to: the conflict and the values met then."""
        return self.identity(f"{seen}|{side}")

    def opened_side(self, side: str, seen: str, sealed: bytes | None) -> Image | None:
        """A side's record as canonical texts by right field; None: no record."""
        if sealed is None:
            return None
        image: Image = unseal_json(sealed, self.side_identity(side, seen))
        return self.mask.image(image, Side.RIGHT)

    def _opened(self, part: str) -> Any:
        sealed = getattr(self, f"sealed_{part}")
        return None if sealed is None else unseal_json(sealed, self.identity(part))

    @property
    def field_names(self) -> list[str]:
        """The right fields that are open."""
        names: list[str] = orjson.loads(self.fields)
        return names

    @property
    def left(self) -> Image | None:
        """The left view as canonical texts by right field; None: no record."""
        return self.opened_side("left", self.seen, self.sealed_left)

    @property
    def right(self) -> Image | None:
        """The right record, likewise."""
        return self.opened_side("right", self.seen, self.sealed_right)

    @property
    def base(self) -> tuple[Image | None, Image | None] | None:
        """Left view and right record when they last agreed; None where there is no base."""
        if self.sealed_base is None:
            return None
        left, right = open_base(self.sealed_base, self.identity("base"))
        images = (orjson.loads(text) if text else None for text in (left, right))
        base_left, base_right = (self.mask.image(image, Side.RIGHT) for image in images)
        return base_left, base_right

    @property
    def candidates(self) -> list[str]:
        """Further keys that match."""
        return self._opened("candidates") or []

    @property
    def decision(self) -> dict[str, Any] | None:
        """What a person decided, as `services.Decision.as_json` has it."""
        decided: dict[str, Any] | None = self._opened("decision")
        return decided


class EarlierValues(models.Model):
    """What both sides of a conflict held before a run met it with other values.

    A side may replace its own value while the conflict waits: a run had read it, so it is kept.
    """

    conflict = models.ForeignKey(Conflict, on_delete=models.CASCADE, related_name="earlier")
    run_id = models.UUIDField()  # the last run that met these values
    met_at = models.DateTimeField()  # when that was
    seen = models.CharField(max_length=32)  # the conflict's `seen` then
    sealed_left = SealedField(  # as the conflict's own
        null=True, place="conflict|{conflict__rule_id}|{conflict__identity_hash}|{seen}|left"
    )
    sealed_right = SealedField(
        null=True, place="conflict|{conflict__rule_id}|{conflict__identity_hash}|{seen}|right"
    )

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.conflict}, {self.met_at:%Y-%m-%d %H:%M:%S}"

    @property
    def left(self) -> Image | None:
        """The left view as canonical texts by right field; None: no record."""
        return self.conflict.opened_side("left", self.seen, self.sealed_left)

    @property
    def right(self) -> Image | None:
        """The right record, likewise."""
        return self.conflict.opened_side("right", self.seen, self.sealed_right)


class Rejection(BaseModel):
    """A record kept out of a run. One open row per rule, record and reason."""

    class Stage(models.TextChoices):
        READ = "read", "Reading"
        CHECK = "check", "Expressions and checks"
        PLAN = "plan", "Comparing"
        WRITE = "write", "Writing"

    class State(models.TextChoices):
        OPEN = "open", "Open"
        REPLAYING = "replaying", "Replaying"
        DRY_RUN = "dry_run", "Found by a dry run"
        RESOLVED = "resolved", "Resolved"
        DISMISSED = "dismissed", "Dismissed"

    rule_id = models.UUIDField()
    run_id = models.UUIDField()  # the run that last rejected it
    partition_id = models.UUIDField(null=True)
    first_run_id = models.UUIDField()
    times = models.PositiveIntegerField(default=1)
    stage = models.CharField(max_length=5, choices=Stage.choices)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    position = models.CharField(max_length=255, blank=True)  # "orders.csv line 17"
    left_key = models.TextField(blank=True)
    right_key = models.TextField(blank=True)  # all there may be of a record that comes from there
    identity_hash = models.BinaryField(max_length=16)  # of rule, key or raw text, code, field
    code = models.CharField(max_length=60)
    sealed_message = SealedField(null=True, place="rejection|{id}|message")  # may quote a value
    field = models.CharField(max_length=255, blank=True)
    check_name = models.CharField(max_length=100, blank=True)
    # The left record as canonical texts by field, the text of what could not be read, and the
    # record as a person corrected it.
    sealed_record = SealedField(null=True, place="rejection|{id}|record")
    sealed_raw = SealedField(null=True, place="rejection|{id}|raw")
    sealed_edit = SealedField(null=True, place="rejection|{id}|edit")
    passed_run_id = models.UUIDField(null=True)  # where the record passed, not finished yet
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_run_id = models.UUIDField(null=True)
    note = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [("replay_rejection", "Can edit, replay and dismiss rejections")]
        constraints = [
            models.UniqueConstraint(fields=["rule_id", "identity_hash"], name="one_rejection")
        ]
        indexes = [
            models.Index(fields=["run_id", "code"], name="rejection_by_run"),
            models.Index(
                fields=["rule_id"], condition=Q(state="open"), name="rejection_open_by_rule"
            ),
            models.Index(fields=["state", "-created_at"], name="rejection_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.code}: {self.left_key or self.position}"

    mask: Mask = CLEAR

    def _identity(self, part: str) -> str:
        return f"rejection|{self.pk}|{part}"

    @property
    def message(self) -> str:
        """What is wrong, for people."""
        try:
            text = self._opened("message").decode()
        except ErasedValueError:
            return ERASED
        if not text or self.mask.is_clear:
            return text
        images = (self._opened_json("record"), self._opened_json("edit"))
        return self.mask.text(text, self.field, *((image, Side.LEFT) for image in images))

    def record(self) -> Image | None:
        """The record as it was read, by left field; None: there is none, or it was erased."""
        return self.mask.image(self._opened_json("record"), Side.LEFT)

    def raw(self) -> str:
        """What could not be read; nobody knows which fields are in it."""
        opened: str = self._opened_json("raw") or ""
        return opened if self.mask.is_clear or not opened else MASKED

    def edit(self) -> Image | None:
        """The record as a person corrected it; None: nobody has, or it was erased."""
        return self.mask.image(self._opened_json("edit"), Side.LEFT)

    def _opened(self, part: str) -> bytes:
        sealed = getattr(self, f"sealed_{part}")
        return unseal(sealed, self._identity(part)) if sealed else b""

    def _opened_json(self, part: str) -> Any:
        try:
            opened = self._opened(part)
        except ErasedValueError:
            return None
        return orjson.loads(opened) if opened else None

    def seal_parts(
        self,
        *,
        message: str = "",
        record: dict[str, str | None] | None = None,
        raw: str = "",
        edit: dict[str, str | None] | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        """Set the sealed parts that are given; does not save.

        sealer: the key of the person whom the record is about.
        """
        if message:
            self.sealed_message = seal(message.encode(), self._identity("message"), sealer)
        if record is not None:
            self.sealed_record = seal_json(record, self._identity("record"), sealer)
        if raw:
            self.sealed_raw = seal_json(raw, self._identity("raw"), sealer)
        if edit is not None:
            self.sealed_edit = seal_json(edit, self._identity("edit"), sealer)
