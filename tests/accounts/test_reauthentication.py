"""Dangerous acts ask for a person who was there just now."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from apps.accounts.selectors import own_factors, recovery_codes_left
from tests.people import administrator, code_of, enrolled, signed_in

pytestmark = pytest.mark.django_db
PAGES = (
    "admin:accounts_user_add",
    "admin:auth_group_add",
    "admin:enrol",
)


@pytest.mark.parametrize("name", PAGES)
def test_a_dangerous_page_asks_after_a_while(later, name):
    client = signed_in(administrator())
    assert client.get(reverse(name)).status_code == 200

    later(minutes=16)

    answer = client.get(reverse(name))
    assert answer.url.startswith(reverse("admin:confirm"))


def test_changing_and_deleting_people_and_roles_ask(later):
    root = administrator()
    role = Group.objects.create(name="Operators")
    client = signed_in(root)
    later(minutes=16)

    for model, pk in (("accounts_user", root.pk), ("auth_group", role.pk)):
        for page in ("change", "delete"):
            address = reverse(f"admin:{model}_{page}", args=(pk,))
            assert client.get(address).url.startswith(reverse("admin:confirm")), address
    password = reverse("admin:auth_user_password_change", args=(root.pk,))
    assert client.get(password).url.startswith(reverse("admin:confirm"))


def test_who_has_opened_a_form_in_time_may_fill_it_in(later):
    client = signed_in(administrator())

    later(minutes=40)
    client.post(reverse("admin:auth_group_add"), {"name": "Operators"})
    later(minutes=10)
    client.post(reverse("admin:auth_group_add"), {"name": "Too late"})

    added = Group.objects.filter(standard_role=None)
    assert [role.name for role in added] == ["Operators"]


def test_a_code_leads_back_to_the_page(later):
    root = administrator()
    client = signed_in(root)
    later(minutes=16)
    asked = client.get(reverse("admin:auth_group_add")).url

    answer = client.post(asked, {"code": code_of(enrolled(root))})

    assert answer.url == reverse("admin:auth_group_add")
    assert client.get(answer.url).status_code == 200


def test_a_wrong_code_confirms_nothing(later):
    client = signed_in(administrator())
    later(minutes=16)
    asked = client.get(reverse("admin:auth_group_add")).url

    assert client.post(asked, {"code": "000000"}).status_code == 200
    assert client.get(reverse("admin:auth_group_add")).status_code == 302


def test_it_leads_to_nobody_else(later):
    root = administrator()
    client = signed_in(root)

    code = {"code": code_of(enrolled(root))}
    answer = client.post(f"{reverse('admin:confirm')}?next=https://evil.example/", code)

    assert answer.url == reverse("admin:index")


@pytest.mark.parametrize("name", ["recovery_codes", "security_remove"])
def test_a_dangerous_button_does_nothing_until_then(later, name):
    root = administrator()
    client = signed_in(root)
    later(minutes=16)
    from_page = "http://testserver/admin/security/"

    answer = client.post(
        reverse(f"admin:{name}"),
        {"factor": enrolled(root).persistent_id},
        headers={"Referer": from_page},
    )

    assert answer.url.startswith(reverse("admin:confirm"))
    assert recovery_codes_left(root) == 0
    assert len(own_factors(root)) == 1
    client.post(answer.url, {"code": code_of(enrolled(root))})
    page = client.get("/admin/security/").content.decode()
    assert "nothing has happened yet" in page


def test_rows_chosen_in_a_list_are_not_deleted_either(later):
    role = Group.objects.create(name="Operators")
    client = signed_in(administrator())
    later(minutes=16)
    chosen = {"action": "delete_selected", "_selected_action": [role.pk], "post": "yes"}

    answer = client.post(reverse("admin:auth_group_changelist"), chosen)

    assert answer.url.startswith(reverse("admin:confirm"))
    assert Group.objects.exists()


def test_the_session_gets_a_new_key(later):
    root = administrator()
    client = signed_in(root)
    before = client.cookies["sessionid"].value

    client.post(reverse("admin:confirm"), {"code": code_of(enrolled(root))})

    assert client.cookies["sessionid"].value != before
