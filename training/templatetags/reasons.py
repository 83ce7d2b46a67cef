"""Reasons of jobs in words."""

from __future__ import annotations

from django import template

from training.models import Job
from training.selectors.reasons import advice

register = template.Library()


@register.filter
def meaning(job: Job) -> str:
    return advice(job.reason, kind=job.kind).meaning
