"""A person's own API tokens. The text is in the answer that makes one, and nowhere else."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from rlhf_platform.accounts.api.description import describe
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict
from rlhf_platform.accounts.models import ApiToken, Role
from rlhf_platform.accounts.secrets import make_api_token, revoke_api_token


class TokenOut(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = ("id", "name", "prefix", "created_at", "last_used_at")
        read_only_fields = fields


class NewTokenOut(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="Shown this once")
    name = serializers.CharField()


class TokenIn(Strict):
    name = serializers.CharField(max_length=80, help_text="What it is for")


class Tokens(Endpoint):
    role = Role.ANNOTATOR

    @describe(
        "list_tokens",
        "Your live tokens, without their text",
        gives=TokenOut(many=True),
        query=Strict,
    )
    def get(self, request: Request) -> Response:
        self.filters(Strict)
        return self.page(own_tokens(self), TokenOut)

    @describe("create_token", "Make a token", body=TokenIn, gives=NewTokenOut, status=201)
    def post(self, request: Request) -> Response:
        name = self.body(TokenIn)["name"]
        secret = make_api_token(user=self.person, workspace=self.workspace, name=name)
        return Response({"token": secret, "name": name}, status=status.HTTP_201_CREATED)


class OneToken(Endpoint):
    role = Role.ANNOTATOR

    @describe("revoke_token", "End one of your tokens for good", status=204, problems=[404])
    def delete(self, request: Request, pk: int) -> Response:
        revoke_api_token(token=self.find(own_tokens(self), pk=pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


def own_tokens(endpoint: Endpoint) -> Any:
    return ApiToken.objects.filter(
        user=endpoint.person, workspace=endpoint.workspace, revoked_at=None
    ).order_by("-pk")
