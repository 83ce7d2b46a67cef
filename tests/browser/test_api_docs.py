"""The API's own page in a real Chromium, under the content policy of the whole site."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from rlhf_platform.accounts.secrets import make_api_token
from tests.browser.test_judging_by_keyboard import page, pytestmark  # noqa: F401
from tests.factories import make_project
from tests.people import make_people


@pytest.mark.usefixtures("transactional_db")
def test_an_operation_is_tried_with_a_token(page: Page, live_server: LiveServer) -> None:  # noqa: F811
    people = make_people()
    make_project(people.workspace)
    secret = make_api_token(user=people.rita, workspace=people.workspace, name="docs")
    page.goto(f"{live_server.url}/api/v1/docs")
    page.locator(".opblock").first.wait_for()
    page.locator(".btn.authorize").first.click()
    box = page.locator(".auth-container", has_text="http, Bearer")
    box.locator("input").fill(secret)
    box.locator("button.authorize").click()
    page.locator(".btn-done").first.click()
    operation = page.locator("#operations-projects-list_projects")
    operation.locator(".opblock-summary-control").click()
    operation.locator(".try-out__btn").click()
    operation.locator(".execute").click()
    reply = operation.locator(".live-responses-table")
    reply.get_by_text("helpful").first.wait_for()
    assert "200" in reply.locator(".response-col_status").last.inner_text()
