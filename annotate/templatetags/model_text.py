"""`{{ text|model_text }}`: Markdown from a model or a file, through the sanitising renderer."""

from __future__ import annotations

from django import template
from django.utils.safestring import SafeString

from annotate.rendering import render

register = template.Library()


@register.filter
def model_text(text: str) -> SafeString:
    return render(text)
