from django.db import migrations

LARGE = (("segmentkeys", ("left", "right")), ("segmentcontent", ("content",)))


def keep_values_whole(apps, schema_editor):
    """PostgreSQL cuts a block out of a value only where it is stored uncompressed."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for table, columns in LARGE:
        for column in columns:
            schema_editor.execute(
                f'ALTER TABLE ledger_{table} ALTER COLUMN "{column}" SET STORAGE EXTERNAL'
            )


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_initial")]
    operations = [migrations.RunPython(keep_values_whole, migrations.RunPython.noop)]
