"""What an event can say that was done: a closed list, so that each word means one thing."""

from __future__ import annotations

from django.db import models


class Act(models.TextChoices):
    """A dotted name: what it was done to, and what was done."""

    SIGNED_IN = "session.signed_in", "Signed in"
    SIGN_IN_FAILED = "session.sign_in_failed", "Sign-in failed"
    SIGNED_OUT = "session.signed_out", "Signed out"
    PASSWORD_CHANGED = "session.password_changed", "Chose a new password"
    ACCESS_REFUSED = "access.refused", "Was refused"

    PERSON_CREATED = "person.created", "Added a person"
    PERSON_CHANGED = "person.changed", "Changed a person"
    PERSON_DELETED = "person.deleted", "Deleted a person"
    PERSON_RIGHTS_CHANGED = "person.rights_changed", "Changed what a person may do"
    ONE_TIME_PASSWORD_ISSUED = "person.one_time_password", "Issued a one-time password"
    PERSON_INVITED = "person.invited", "Invited a person"
    FACTOR_ADDED = "factor.added", "Enrolled a second factor"
    FACTOR_REMOVED = "factor.removed", "Removed a second factor"
    FACTORS_RESET = "factor.reset", "Removed all second factors of a person"
    SERVICE_CREATED = "service.created", "Added a service account"
    SERVICE_CHANGED = "service.changed", "Changed a service account"
    SERVICE_DELETED = "service.deleted", "Deleted a service account"
    TOKEN_CREATED = "token.created", "Made a token"
    TOKEN_ROTATED = "token.rotated", "Replaced a token"
    TOKEN_REVOKED = "token.revoked", "Revoked a token"
    TOKENS_VOIDED = "token.voided", "Revoked all tokens of an account"
    TOKEN_REFUSED = "token.refused", "Used a token that was refused"
    CLIENT_CREATED = "client.created", "Added an OAuth client"
    CLIENT_CHANGED = "client.changed", "Changed an OAuth client"
    CLIENT_DELETED = "client.deleted", "Deleted an OAuth client"
    CLIENT_SECRET_RENEWED = "client.secret_renewed", "Renewed the secret of an OAuth client"
    CLIENT_CONSENTED = "client.consented", "Let an OAuth client act as oneself"
    CLIENT_WITHDRAWN = "client.withdrawn", "Took an OAuth client's access back"
    ROLE_CREATED = "role.created", "Added a role"
    ROLE_CHANGED = "role.changed", "Changed a role"
    ROLE_DELETED = "role.deleted", "Deleted a role"
    ROLE_RIGHTS_CHANGED = "role.rights_changed", "Changed what a role may do"

    GRANT_GIVEN = "grant.given", "Granted an object"
    GRANT_TAKEN = "grant.taken", "Took a grant back"
    TAGS_CHANGED = "grant.tagged", "Changed the tags of an object"

    SOURCE_CREATED = "source.created", "Added a source"
    SOURCE_CHANGED = "source.changed", "Changed a source"
    SOURCE_DELETED = "source.deleted", "Deleted a source"
    SECRETS_REPLACED = "source.secrets_replaced", "Replaced secrets of a source"
    SOURCE_PAUSED = "source.paused", "Paused a source"
    SOURCE_RESUMED = "source.resumed", "Resumed a source"
    DATASET_CREATED = "dataset.created", "Created a dataset"
    DATASET_CHANGED = "dataset.changed", "Changed a dataset"
    DATASET_DELETED = "dataset.deleted", "Deleted a dataset"
    FIELD_CHANGED = "field.changed", "Changed a field of the inventory"
    DRIFT_SEEN = "drift.seen", "Marked schema drift as seen"

    HOSTED_CREATED = "hosted.created", "Began to host a dataset"
    HOSTED_CHANGED = "hosted.changed", "Changed a hub dataset"
    HOSTED_SCHEMA_CHANGED = "hosted.schema_changed", "Changed the schema of a hub dataset"
    HOSTED_SCOPE_SET = "hosted.scope_set", "Said which records of a hub dataset an account sees"
    REPLICA_REVOKED = "replica.revoked", "Took the access of a replica back"

    MAPPING_CREATED = "mapping.created", "Added a mapping"
    MAPPING_CHANGED = "mapping.changed", "Changed a mapping"
    MAPPING_DELETED = "mapping.deleted", "Deleted a mapping"
    LOOKUP_CREATED = "lookup.created", "Added a lookup table"
    LOOKUP_CHANGED = "lookup.changed", "Changed a lookup table"
    LOOKUP_DELETED = "lookup.deleted", "Deleted a lookup table"

    RULE_CREATED = "rule.created", "Added a rule"
    RULE_CHANGED = "rule.changed", "Changed a rule"
    RULE_DELETED = "rule.deleted", "Deleted a rule"
    RULE_ENABLED = "rule.enabled", "Enabled a schedule"
    RULE_DISABLED = "rule.disabled", "Disabled a schedule"
    RULE_PAUSED = "rule.paused", "Paused a rule"
    RULE_RESUMED = "rule.resumed", "Resumed a rule"
    CONFIGURATION_APPLIED = "configuration.applied", "Applied a configuration file"
    CONFIGURATION_EXPORTED = "configuration.exported", "Exported the configuration"

    INCIDENT_ACKNOWLEDGED = "incident.acknowledged", "Acknowledged an incident"
    INCIDENT_SNOOZED = "incident.snoozed", "Snoozed an incident"
    INCIDENT_RESOLVED = "incident.resolved", "Resolved an incident"
    CHANNEL_CREATED = "channel.created", "Added a channel"
    CHANNEL_CHANGED = "channel.changed", "Changed a channel"
    CHANNEL_DELETED = "channel.deleted", "Deleted a channel"
    CHANNEL_SECRET_RENEWED = "channel.secret_renewed", "Renewed the secret of a webhook"
    ESCALATION_CREATED = "escalation.created", "Added an escalation policy"
    ESCALATION_CHANGED = "escalation.changed", "Changed an escalation policy"
    ESCALATION_DELETED = "escalation.deleted", "Deleted an escalation policy"

    RUN_REQUESTED = "run.requested", "Requested a run"
    RUN_CANCELLED = "run.cancelled", "Cancelled a run"
    RUN_APPROVED = "run.approved", "Approved a plan"
    RUN_REJECTED = "run.rejected", "Rejected a plan"
    UNDO_PREVIEWED = "undo.previewed", "Previewed an undo"
    UNDO_REQUESTED = "undo.requested", "Requested an undo"
    RESTORE_REQUESTED = "restore.requested", "Asked for a restore"
    RESTORE_APPROVED = "restore.approved", "Approved a restore"
    RESTORE_DECLINED = "restore.declined", "Declined a restore"
    RESTORE_WITHDRAWN = "restore.withdrawn", "Withdrew a restore request"
    CONFLICT_DECIDED = "conflict.decided", "Decided a conflict"
    RECORDS_SEARCHED = "records.searched", "Searched records by a value"
    VALUES_REVEALED = "values.revealed", "Revealed personal values"
    REJECTION_EDITED = "rejection.edited", "Corrected a rejected record"
    REJECTION_DISMISSED = "rejection.dismissed", "Dismissed a rejection"

    KEY_ROTATION_STARTED = "key.rotation_started", "Began to rotate the encryption keys"
    KEY_ROTATION_FINISHED = "key.rotation_finished", "Finished a rotation of the encryption keys"
    KEYS_REWRAPPED = "key.rewrapped", "Wrapped the data keys anew"
    KEY_DESTROYED = "key.destroyed", "Destroyed a data key"
    SUBJECT_ERASED = "subject.erased", "Erased a person's values"
    ERASURES_REPLAYED = "subject.replayed", "Erased again whom a restore had brought back"
    ENCRYPTION_PROVED = "key.proved", "Proved what is encrypted"

    PLATFORM_PAUSED = "platform.paused", "Paused everything"
    PLATFORM_RESUMED = "platform.resumed", "Resumed everything"
    DEMO_REMOVED = "demo.removed", "Removed the demo"
    AUDIT_EXPORTED = "audit.exported", "Exported the audit log"
    AUDIT_VERIFIED = "audit.verified", "Verified the audit log"

    @property
    def subject(self) -> str:
        """The first part: what it was done to."""
        return str(self.value).partition(".")[0]


SUBJECTS = {
    "session": "Sign-in",
    "access": "Access",
    "person": "People",
    "factor": "Second factors",
    "service": "Service accounts",
    "token": "Tokens",  # nosec B105  # a heading
    "client": "OAuth clients",
    "role": "Roles",
    "grant": "Grants",
    "source": "Sources",
    "dataset": "Datasets",
    "field": "Data inventory",
    "drift": "Schema drift",
    "hosted": "Hub datasets",
    "replica": "Replicas",
    "mapping": "Mappings",
    "lookup": "Lookup tables",
    "rule": "Rules",
    "configuration": "Configuration files",
    "run": "Runs",
    "undo": "Undo",
    "incident": "Incidents",
    "channel": "Channels",
    "escalation": "Escalation",
    "restore": "Restore requests",
    "conflict": "Conflicts",
    "rejection": "Rejections",
    "records": "Searches",
    "values": "Personal values",
    "key": "Encryption keys",
    "subject": "Erasures",
    "platform": "Platform",
    "demo": "Demo",
    "audit": "Audit log",
}


def actions_of(subject: str) -> list[Act]:
    """All actions whose first part is `subject`."""
    return [action for action in Act if action.subject == subject]
