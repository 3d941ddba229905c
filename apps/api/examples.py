"""Examples of the OpenAPI document: what a developer tries first."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample

RULE = "01900000-0000-7000-8000-000000000001"
DATASETS = ("01900000-0000-7000-8000-000000000002", "01900000-0000-7000-8000-000000000003")
MAPPING = "01900000-0000-7000-8000-000000000004"


def _sent(name: str, /, **body: object) -> OpenApiExample:
    return OpenApiExample(name, body, request_only=True)


START_RUN = [
    _sent("Start", rule=RULE),
    _sent("Only plan", rule=RULE, mode="dry_run", reason="before the release"),
    _sent("One record", rule=RULE, records=[{"left_key": '["42"]'}]),
]
APPROVE = [
    _sent("The whole plan", note="looked at"),
    _sent("Only inserts", selection={"operations": ["insert"]}, note="deletes are looked into"),
]
UNDO = [_sent("Preview", reason="wrong export"), _sent("Undo", reason="wrong export", mode="apply")]
DECIDE = [
    _sent(
        "The left side wins",
        seen="0f3a9c2e51d84b7790e6a1c4f2b8d350",
        record="left",
        note="asked the customer",
    ),
    _sent(
        "Field by field",
        seen="0f3a9c2e51d84b7790e6a1c4f2b8d350",
        choices={"mail": {"take": "right"}, "name": {"take": "value", "value": "Ada Lovelace"}},
    ),
]
REPLAY = [_sent("One", rejections=["01900000-0000-7000-8000-000000000005"])]
REPLICA = "0190c5b2-7f1e-4f0a-9d35-3f6f0a1c2b3d"
PUSH = [
    _sent(
        "A new record and an edit",
        replica=REPLICA,
        mutations=[
            {"mid": 1, "id": "a1", "set": {"title": "Buy milk", "done": False}},
            {
                "mid": 2,
                "id": "b7",
                "base_rev": 41,
                "set": {"done": True},
                "hlc": "019a5d2c8f000000",
            },
        ],
    ),
    _sent(
        "A counter, a set and a deletion",
        replica=REPLICA,
        mutations=[
            {
                "mid": 3,
                "id": "b7",
                "base_rev": 43,
                "increment": {"stock": -1},
                "add": {"tags": ["sold"]},
            },
            {"mid": 4, "id": "c2", "base_rev": 12, "delete": True},
        ],
    ),
]
NEW_SOURCE = [
    _sent(
        "PostgreSQL",
        name="CRM",
        connector="postgresql",
        settings={
            "host": "crm.example",
            "database": "crm",
            "user": "lockstep",
            "password": "…",  # nosec B105  # stands for one
            "tls": "verify-full",
        },
    )
]
NEW_MAPPING = [
    _sent(
        "Customers",
        name="Customers",
        left=DATASETS[0],
        right=DATASETS[1],
        key=["customer_id"],
        field_mappings=[
            {"right": "customer_id", "left": "id"},
            {"right": "name", "to_right": "trim(name)"},
        ],
    )
]
NEW_RULE = [
    _sent(
        "Every hour",
        name="Customers",
        mapping=MAPPING,
        schedule_kind="every",
        every_minutes=60,
        max_deletes_percent=10,
        checks=[{"name": "named", "kind": "required", "field": "name"}],
    )
]
