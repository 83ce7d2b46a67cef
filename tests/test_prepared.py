"""Queries compiled once give what Django's own give."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import QuerySet

from rlhf_platform.accounts.models import Membership, Role, User, Workspace
from rlhf_platform.prepared import Prepared, PreparedUpdate

pytestmark = pytest.mark.django_db


def of_person(newest: bool, *, user: int, role: str) -> QuerySet[Membership]:
    rows = Membership.objects.filter(user=user, role=role).select_related("workspace")
    return rows.order_by("-pk" if newest else "pk")


def a_member(world: Any, email: str) -> Membership:
    user = User.objects.create(email=email)
    return Membership.objects.create(workspace=world, user=user, role=Role.ANNOTATOR)


@pytest.fixture
def world() -> Any:
    return Workspace.objects.create(slug="w", name="W")


def test_each_use_has_its_own_values(world: Any, django_assert_num_queries: Any) -> None:
    alice, bob = a_member(world, "alice@example.org"), a_member(world, "bob@example.org")
    members = Prepared(of_person)
    for member in (alice, bob, alice):
        with django_assert_num_queries(1):
            found = members.first(False, user=member.user_id, role=Role.ANNOTATOR.value)
            assert found == member
            assert found is not None
            assert found.workspace == world
    assert members.first(False, user=bob.user_id, role=Role.ADMIN.value) is None


def test_a_shape_is_compiled_apart(world: Any) -> None:
    alice = a_member(world, "alice@example.org")
    members = Prepared(of_person)
    for newest in (False, True):
        assert members.rows(newest, user=alice.user_id, role=Role.ANNOTATOR.value) == [alice]


@pytest.mark.parametrize("key", [2**63, 10**30, -(10**30)])
def test_a_number_that_no_column_holds_is_in_no_row(world: Any, key: int) -> None:
    assert Prepared(of_person).rows(False, user=key, role=Role.ANNOTATOR.value) == []


def test_a_value_that_is_not_in_the_query_is_an_error(world: Any) -> None:
    def nothing(*, user: int) -> QuerySet[Membership]:
        return Membership.objects.all()

    with pytest.raises(ValueError, match="user: not in the query as given"):
        Prepared(nothing).rows(user=1)


def test_an_update_changes_the_rows_of_its_values(world: Any) -> None:
    alice, bob = a_member(world, "alice@example.org"), a_member(world, "bob@example.org")
    promote = PreparedUpdate(lambda *, pk: Membership.objects.filter(pk=pk), role=Role.ADMIN)
    assert promote.run(pk=bob.pk) == 1
    assert promote.run(pk=bob.pk + 1000) == 0
    alice.refresh_from_db()
    bob.refresh_from_db()
    assert (alice.role, bob.role) == (Role.ANNOTATOR, Role.ADMIN)
