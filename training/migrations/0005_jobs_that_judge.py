from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0004_text_sets_single_runs_and_planned_peaks'),
    ]

    operations = [
        migrations.AlterField(
            model_name='job',
            name='kind',
            field=models.CharField(choices=[('run', 'Engine run'), ('push_snapshot', 'Push a snapshot to the Hub'), ('push_model', 'Push a model to the Hub'), ('judge', 'Let a machine judge')], max_length=16),
        ),
    ]
