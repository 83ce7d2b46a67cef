"""Flags: once per kind and person, for admins, dealt with once."""

from __future__ import annotations

import pytest

from annotate.errors import AnnotateError
from annotate.models import Flag
from annotate.selectors.flags import flags_of
from annotate.services.flagging import flag_comparison, settle_flag
from tests.annotate.services.leases import lease
from tests.factories import make_annotator, make_comparison, make_project
from tests.people import People


def test_the_same_kind_again_is_the_same_flag(people: People) -> None:
    bob, held = lease(people, make_comparison(make_project(people.workspace)))
    flag = flag_comparison(assignment=held, annotator=bob, kind="unsafe", note="a weapon")
    assert flag_comparison(assignment=held, annotator=bob, kind="unsafe") == flag
    assert Flag.objects.get().note == "a weapon"
    flag_comparison(assignment=held, annotator=bob, kind="private")
    assert Flag.objects.count() == 2
    held.refresh_from_db()
    assert held.state == "leased"


def test_an_admin_settles_it_once_and_another_note_opens_it_again(people: People) -> None:
    bob, held = lease(people, make_comparison(make_project(people.workspace)))
    flag = flag_comparison(assignment=held, annotator=bob, kind="broken")
    assert list(flags_of(project=held.comparison.project)) == [flag]
    settle_flag(flag=flag, actor=people.alice)
    assert settle_flag(flag=flag, actor=people.rita).settled_by == people.alice
    assert not flags_of(project=held.comparison.project).exists()
    assert flags_of(project=held.comparison.project, settled=True).get() == flag
    flag_comparison(assignment=held, annotator=bob, kind="broken", note="cut off")
    assert flags_of(project=held.comparison.project).get().note == "cut off"


def test_only_ones_own_and_only_known_kinds(people: People) -> None:
    bob, held = lease(people, make_comparison(make_project(people.workspace)))
    rita = make_annotator(people.workspace, people.rita)
    with pytest.raises(AnnotateError, match="not given to you"):
        flag_comparison(assignment=held, annotator=rita, kind="unsafe")
    for kind, note in (("boring", ""), ("unsafe", "x" * 2001), ("unsafe", "\0")):
        with pytest.raises(AnnotateError):
            flag_comparison(assignment=held, annotator=bob, kind=kind, note=note)
    assert not Flag.objects.exists()
