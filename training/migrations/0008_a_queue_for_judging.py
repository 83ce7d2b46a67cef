from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0007_texts_of_every_kind_and_comparisons'),
    ]

    operations = [
        migrations.AlterField(
            model_name='job',
            name='queue',
            field=models.CharField(choices=[('default', 'Default'), ('training', 'Training'), ('sampling', 'Sampling'), ('judging', 'Judging')], max_length=8),
        ),
    ]
