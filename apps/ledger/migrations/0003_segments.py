import hashlib

import apps.core.clock
import django.db.models.deletion
from django.db import migrations, models


def name_field_sets(apps, schema_editor):
    """Each list of fields that changes name becomes a field set of their rule."""
    change, field_set = (apps.get_model("ledger", name) for name in ("Change", "FieldSet"))
    for rule_id, fields in change.objects.order_by().values_list("rule_id", "fields").distinct():
        digest = hashlib.md5(fields.encode(), usedforsecurity=False).digest()
        made = field_set.objects.create(rule_id=rule_id, fields=fields, fields_hash=digest)
        change.objects.filter(rule_id=rule_id, fields=fields).update(field_set=made)


def keep_filters_whole(apps, schema_editor):
    """PostgreSQL cuts a block out of a value only where it is stored uncompressed."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for table, columns in (("segmentkeys", ("left", "right")), ("segmentcontent", ("content",))):
        for column in columns:
            schema_editor.execute(
                f'ALTER TABLE ledger_{table} ALTER COLUMN "{column}" SET STORAGE EXTERNAL'
            )


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0002_outcomes'),
    ]

    operations = [
        migrations.CreateModel(
            name='FieldSet',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('rule_id', models.UUIDField()),
                ('fields', models.TextField()),
                ('fields_hash', models.BinaryField(max_length=16)),
            ],
        ),
        migrations.CreateModel(
            name='Segment',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('identity', models.UUIDField(default=apps.core.clock.new_id)),
                ('rule_id', models.UUIDField()),
                ('rows', models.PositiveIntegerField()),
                ('size', models.PositiveIntegerField()),
                ('field_sets', models.JSONField(default=list)),
                ('left_low', models.BinaryField(max_length=64, null=True)),
                ('left_high', models.BinaryField(max_length=64, null=True)),
                ('right_low', models.BinaryField(max_length=64, null=True)),
                ('right_high', models.BinaryField(max_length=64, null=True)),
                ('planned_from', models.DateTimeField()),
                ('planned_to', models.DateTimeField()),
                ('compacted', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(default=apps.core.clock.now)),
            ],
        ),
        migrations.CreateModel(
            name='SegmentPart',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('rule_id', models.UUIDField()),
                ('run_id', models.UUIDField()),
                ('partition_id', models.UUIDField()),
                ('first_sequence', models.PositiveIntegerField()),
                ('last_sequence', models.PositiveIntegerField()),
                ('first_id', models.BigIntegerField(default=0)),
                ('last_id', models.BigIntegerField(default=0)),
                ('rows', models.PositiveIntegerField()),
                ('counts', models.JSONField(default=dict)),
                ('settled_through', models.PositiveIntegerField(default=0)),
                ('settled_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.RemoveIndex(
            model_name='change',
            name='change_by_run',
        ),
        migrations.AddConstraint(
            model_name='fieldset',
            constraint=models.UniqueConstraint(fields=('rule_id', 'fields_hash'), name='one_field_set'),
        ),
        migrations.AddField(
            model_name='change',
            name='field_set',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ledger.fieldset'),
        ),
        migrations.RunPython(name_field_sets, migrations.RunPython.noop, atomic=True),
        migrations.AlterField(
            model_name='change',
            name='field_set',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ledger.fieldset'),
        ),
        migrations.RemoveField(
            model_name='change',
            name='fields',
        ),
        migrations.AddIndex(
            model_name='change',
            index=models.Index(fields=['run_id', 'id'], name='change_by_run'),
        ),
        migrations.AddIndex(
            model_name='change',
            index=models.Index(fields=['rule_id', 'field_set', 'planned_at'], name='change_by_field'),
        ),
        migrations.AddIndex(
            model_name='change',
            index=models.Index(fields=['planned_at'], name='change_by_age'),
        ),
        migrations.CreateModel(
            name='SegmentContent',
            fields=[
                ('segment', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, serialize=False, to='ledger.segment')),
                ('sealed_key', models.BinaryField()),
                ('content', models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name='SegmentKeys',
            fields=[
                ('segment', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, serialize=False, to='ledger.segment')),
                ('blocks', models.PositiveIntegerField()),
                ('left', models.BinaryField(null=True)),
                ('right', models.BinaryField()),
            ],
        ),
        migrations.AddIndex(
            model_name='segment',
            index=models.Index(fields=['rule_id', 'planned_to'], name='segment_by_rule'),
        ),
        migrations.AddIndex(
            model_name='segment',
            index=models.Index(fields=['planned_to'], name='segment_by_age'),
        ),
        migrations.AddField(
            model_name='segmentpart',
            name='segment',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='parts', to='ledger.segment'),
        ),
        migrations.AddIndex(
            model_name='segmentpart',
            index=models.Index(fields=['run_id', 'first_id'], name='part_by_run'),
        ),
        migrations.AddIndex(
            model_name='segmentpart',
            index=models.Index(fields=['first_id'], name='part_by_change'),
        ),
        migrations.AddConstraint(
            model_name='segmentpart',
            constraint=models.UniqueConstraint(fields=('partition_id', 'first_sequence', 'segment'), name='segment_part'),
        ),
        migrations.RunPython(keep_filters_whole, migrations.RunPython.noop),
    ]
