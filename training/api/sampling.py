"""Samplings: a version answers prompts, and the pairs of answers open for judgment."""

from __future__ import annotations

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotate.models import Project, PromptSet
from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from training.api.runs import RunOut, run_of
from training.api.settings_field import SettingsField
from training.models import ModelVersion
from training.services.launching import launch_sampling


class SamplingIn(Strict):
    project = serializers.SlugField(help_text="Where the comparisons open")
    version = serializers.IntegerField(min_value=1)
    prompt_set = serializers.IntegerField(min_value=1)
    config = SettingsField(
        required=False, help_text='E.g. {"sample": {"max_new_tokens": 96, "temperature": 0.8}}'
    )


class Samplings(Endpoint):
    @describe("launch_sampling", "Queue a sampling run", body=SamplingIn, gives=RunOut, status=201)
    def post(self, request: Request) -> Response:
        asked = self.body(SamplingIn)
        run = launch_sampling(
            project=self.named("project", Project.objects.all(), slug=asked["project"]),
            version=self.named("version", ModelVersion.objects.all(), pk=asked["version"]),
            prompt_set=self.named("prompt_set", PromptSet.objects.all(), pk=asked["prompt_set"]),
            config=asked.get("config"),
        )
        return Response(RunOut(run_of(self, run.pk)).data, status=status.HTTP_201_CREATED)
