"""A person's keys as a form: a field for each act, named after it."""

from __future__ import annotations

from typing import Any

from django import forms

from annotate.services.hotkeys import ACTS, FIRST, Wishes


class HotkeysForm(forms.Form):
    """What `keep_hotkeys` takes."""

    on = forms.BooleanField(
        required=False,
        label="Single keys are on",
        help_text="Arrows, Enter and Tab always work.",
    )
    pace = forms.BooleanField(required=False, label="The screen shows my pace")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for act, label in ACTS.items():
            box = forms.TextInput(attrs={"size": 2, "autocomplete": "off", "autocapitalize": "off"})
            self.fields[act] = forms.CharField(
                label=label, max_length=1, required=False, widget=box
            )

    def wishes(self) -> dict[str, Any]:
        """An empty box is the key it was at first."""
        said = self.cleaned_data
        keys = {act: said[act] for act in FIRST if said[act]}
        return {"on": said["on"], "pace": said["pace"], "keys": keys}


def as_initial(wishes: Wishes) -> dict[str, Any]:
    keys = {act: key.upper() for act, key in wishes.all_keys.items()}
    return {"on": wishes.on, "pace": wishes.pace, **keys}
