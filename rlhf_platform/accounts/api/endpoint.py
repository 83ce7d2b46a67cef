"""What every endpoint is made of: a role gate, one workspace, strict bodies, pages of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from django.conf import settings
from django.db import models
from rest_framework import serializers, status
from rest_framework.exceptions import (
    APIException,
    NotFound,
    ParseError,
    PermissionDenied,
    ValidationError,
)
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from rlhf_platform.accounts.api.paging import PAGE_NAMES, Pages
from rlhf_platform.accounts.models import Membership, Role, User, Workspace

Row = TypeVar("Row", bound=models.Model)


class TooLarge(APIException):
    """Raised when a body is longer than this endpoint reads."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class Strict(serializers.Serializer[Any]):
    """A body (or a query string) in which every field is known: a typing error is not ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(map(str, data)) - set(self.fields))
            if unknown:
                known = ", ".join(self.fields) or "none"
                raise ValidationError(
                    {name: [f"There is no such field here; known: {known}."] for name in unknown}
                )
        return super().to_internal_value(data)


class Nothing(Strict):
    """The body of a request that needs none: empty, or an empty object."""


class StrictJSONParser(JSONParser):
    """DRF's parser, which lets nesting beyond Python's recursion limit through as a 500."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None


class AlwaysJSON(BaseContentNegotiation):
    """One representation each: an Accept header that lacks it is no reason for a 406."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


class HasRole(BasePermission):
    """Lets members with the endpoint's role or above through."""

    def has_permission(self, request: Request, view: Any) -> bool:
        membership = view.membership
        if not membership:
            raise PermissionDenied("You belong to no workspace; ask an admin to add you.")
        role: Role = view.roles.get(request.method, view.role)
        if not membership.allows(role):
            raise PermissionDenied(
                f"This needs the role {role.label.lower()} or above; "
                f"here you are {Role(membership.role).label.lower()}."
            )
        return True


class Endpoint(GenericAPIView[Any]):
    """Subclasses name the least `role`, per method in `roles` where they differ."""

    permission_classes = (IsAuthenticated, HasRole)
    content_negotiation_class = AlwaysJSON
    http_method_names = ("get", "head", "post", "put", "patch", "delete")
    parser_classes: Any = (StrictJSONParser,)
    pagination_class = Pages
    role = Role.RESEARCHER
    roles: Mapping[str, Role] = {}
    #: The most bytes a body may have.
    max_body = settings.API_MAX_BODY_BYTES

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Before anything reads the body: a session's CSRF check already parses forms.
        length = str(request.META.get("CONTENT_LENGTH") or "0")
        if not length.isdigit() or int(length) > self.max_body:
            raise TooLarge(f"The body has {length} bytes; at most {self.max_body} are read here.")
        super().initial(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "private, no-store"
        return response

    @property
    def membership(self) -> Membership:
        return self.request._request.membership  # type: ignore[attr-defined]

    @property
    def workspace(self) -> Workspace:
        return self.membership.workspace

    @property
    def person(self) -> User:
        user = self.request.user
        assert isinstance(user, User)  # noqa: S101 - the permission classes let nobody else in
        return user

    def body(self, kind: type[serializers.BaseSerializer[Any]]) -> dict[str, Any]:
        """The validated body. Raises ValidationError naming every field that is wrong."""
        return checked(kind(data=self.request.data))

    def query(self, kind: type[serializers.BaseSerializer[Any]]) -> dict[str, Any]:
        """The validated query string."""
        return checked(kind(data=self.request.query_params.dict()))

    def filters(self, kind: type[serializers.BaseSerializer[Any]]) -> dict[str, Any]:
        """The validated query string of a list, without the two names that select its page."""
        given = self.request.query_params.dict()
        return checked(kind(data={k: v for k, v in given.items() if k not in PAGE_NAMES}))

    def find(self, rows: models.QuerySet[Row], **keys: Any) -> Row:
        """The row of this workspace that the address names. Raises NotFound."""
        found = rows.filter(workspace=self.workspace, **keys).first()
        if found is None:
            raise NotFound(f"This workspace has no {missing(rows, keys)}.")
        return found

    def named(self, field: str, rows: models.QuerySet[Row], **keys: Any) -> Row:
        """The row of this workspace that a body names. Raises ValidationError for the field."""
        found = rows.filter(workspace=self.workspace, **keys).first()
        if found is None:
            raise ValidationError({field: [f"This workspace has no {missing(rows, keys)}."]})
        return found

    def member(self, field: str, address: str) -> User:
        """The member of this workspace that a body names by their address. Raises ValidationError
        for the field."""
        members = User.objects.filter(memberships__workspace=self.workspace)
        found = members.filter(email__iexact=address).first()
        if found is None:
            raise ValidationError({field: [f"This workspace has no member {json.dumps(address)}."]})
        return found

    def page(
        self, rows: models.QuerySet[Any], kind: type[serializers.BaseSerializer[Any]]
    ) -> Response:
        return self.get_paginated_response(kind(self.paginate_queryset(rows), many=True).data)


def checked(serializer: serializers.BaseSerializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def missing(rows: models.QuerySet[Any], keys: dict[str, Any]) -> str:
    name = str(rows.model._meta.verbose_name)
    return f"{name} {', '.join(json.dumps(value) for value in keys.values())}"
