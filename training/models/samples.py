"""What a policy answered, and which response it became on the annotation side."""

from __future__ import annotations

from django.db import models

from annotate.models import Prompt, Response
from rlhf_platform.accounts.models import Workspace
from training.models.policies import ModelVersion
from training.models.runs import Run


class Sample(models.Model):
    """One generated response: the link from a model version to a response that people judge."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="samples")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="samples")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT)
    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="samples")
    index = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    #: True when the policy ended the answer itself (EOS), false when it was cut.
    finished = models.BooleanField()
    tokens = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "prompt", "index"], name="sample_once")
        ]

    def __str__(self) -> str:
        return f"sample {self.index} of {self.version} for {self.prompt_id}"
