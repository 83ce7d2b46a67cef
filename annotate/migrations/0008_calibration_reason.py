from importlib import import_module

from django.db import migrations, models

history = import_module("annotate.migrations.0002_history_is_appended")
TABLE = "annotate_calibration"


def keep_history(apps, schema_editor):
    """SQLite changes a table by copying it; the copy has no triggers."""
    if schema_editor.connection.vendor == "sqlite":
        for event in ("UPDATE", "DELETE"):
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {TABLE}_no_{event.lower()}")
            schema_editor.execute(history.trigger("sqlite", TABLE, event))


class Migration(migrations.Migration):

    dependencies = [
        ('annotate', '0007_serving_and_care'),
    ]

    operations = [
        migrations.RunPython(migrations.RunPython.noop, keep_history),
        migrations.AddField(
            model_name='calibration',
            name='reason',
            field=models.TextField(blank=True),
        ),
        migrations.RunPython(keep_history, migrations.RunPython.noop),
    ]
