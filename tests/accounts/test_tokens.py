"""Tokens: shown once, kept as digests, bound to account, scopes, networks and time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.urls import reverse

from apps.accounts.models import ServiceAccount, Token, User
from apps.accounts.scopes import SCOPES, permissions_of
from apps.accounts.services import (
    TokenInvalid,
    TokenRefused,
    create_service_account,
    create_token,
    invite,
    issue_one_time_password,
    remove_all_factors,
    revoke_token,
    rotate_token,
    use_token,
)
from apps.accounts.token_text import is_well_formed, new_text
from apps.audit.models import AuditEvent
from apps.core.clock import now
from apps.core.reauthentication import CONFIRMED_AT
from apps.core.selectors import REACH_ALL, permits
from apps.rules.models import Rule
from apps.sources.models import Source
from tests.people import administrator, enrolled, person, signed_in

pytestmark = pytest.mark.django_db
HERE = "198.51.100.7"


@pytest.fixture
def owner() -> User:
    user = person("ada", "rules.run_rule", "rules.view_rule")
    enrolled(user)
    return user


def made(owner: User, **changes: Any) -> tuple[Token, str]:
    asked = {"name": "export", "scopes": ["rules:read"], "days": 30, "actor": owner, **changes}
    return create_token(owner, **asked)


def acts() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("action", flat=True))


def test_the_text_is_found_by_scanners_and_checks_itself():
    text = new_text()

    assert text.startswith("lks_")
    assert is_well_formed(text)
    assert not is_well_formed(text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert not is_well_formed(text, "lkx_")


def test_only_a_digest_is_kept(owner):
    token, text = made(owner)

    kept = " ".join(str(value) for value in Token.objects.values().get().values())
    assert text not in kept
    assert token.hint == text[:8]
    assert not any(text in str(event.details) for event in AuditEvent.objects.all())


def test_it_acts_as_its_owner_within_its_scopes(owner):
    _, text = made(owner)

    account, _ = use_token(text, HERE)

    assert account == owner
    assert permits(account, Rule, "view")
    assert not permits(account, Rule, "run")  # the person may, the scope does not say so
    assert not permits(account, Source, "view")
    assert account.get_all_permissions() == {"rules.view_rule", REACH_ALL}


def test_a_scope_gives_nothing_that_the_owner_has_not(owner):
    _, text = made(owner, scopes=list(SCOPES))

    account, _ = use_token(text, HERE)

    assert permits(account, Rule, "run")
    assert not permits(account, Rule, "change")


def test_an_administrators_token_is_held_by_its_scopes():
    root = administrator()
    enrolled(root)
    _, text = made(root)

    account, _ = use_token(text, HERE)

    assert account.is_superuser
    assert not account.has_perm("accounts.add_user")
    assert not permits(account, Source, "view")


def test_no_scope_reveals_gives_rights_or_opens_the_platform():
    allowed = permissions_of(SCOPES)
    closed = ("reveal_", "accounts.", "auth.", "core.rotate", "core.pause", "export_", "delete_")

    assert not [name for name in allowed for word in closed if word in name]


def test_every_permission_of_a_scope_exists():
    known = {
        f"{row.content_type.app_label}.{row.codename}"
        for row in Permission.objects.select_related("content_type")
    }

    assert permissions_of(SCOPES) <= known


def test_what_the_owner_loses_the_token_loses_at_once(owner):
    _, text = made(owner)
    owner.user_permissions.remove(Permission.objects.get(codename="view_rule"))

    account, _ = use_token(text, HERE)

    assert not permits(account, Rule, "view")


@pytest.mark.parametrize("column", ["is_active", "is_staff"])
def test_it_opens_nothing_for_somebody_who_could_not_sign_in(owner, column):
    _, text = made(owner)
    User.objects.filter(pk=owner.pk).update(**{column: False})

    with pytest.raises(TokenRefused, match="may not be used"):
        use_token(text, HERE)


def test_without_a_second_factor_there_is_no_token(owner):
    _, text = made(owner)
    remove_all_factors(owner)

    with pytest.raises(TokenRefused, match="may not be used"):
        use_token(text, HERE)
    with pytest.raises(TokenInvalid, match="second factor"):
        made(owner)
    with pytest.raises(TokenInvalid, match="second factor"):
        made(owner, actor=None)  # not from the command line either


@pytest.mark.parametrize("begin_anew", [invite, issue_one_time_password])
def test_who_begins_anew_has_no_old_tokens(owner, begin_anew):
    token, text = made(owner)
    begin_anew(owner, **({"actor": None} if begin_anew is invite else {}))
    owner.must_change_password = False
    owner.save()

    with pytest.raises(TokenRefused, match="revoked"):
        use_token(text, HERE)
    token.owner.refresh_from_db()
    assert token.state == Token.State.REVOKED
    _, fresh = made(owner)
    assert use_token(fresh, HERE)


def test_it_ends_at_its_time_and_lives_no_longer_than_allowed(owner, settings):
    _, text = made(owner, days=1)
    Token.objects.update(expires_at=now() - timedelta(seconds=1))

    with pytest.raises(TokenRefused, match="expired"):
        use_token(text, HERE)
    settings.LOCKSTEP = {**settings.LOCKSTEP, "TOKEN_DAYS": 7}
    with pytest.raises(TokenInvalid, match="1 to 7 days"):
        made(owner, days=8)
    with pytest.raises(TokenInvalid, match="1 to 7 days"):
        made(owner, days=0)


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ([], None, True),
        (["198.51.100.0/24"], HERE, True),
        (["198.51.100.7"], HERE, True),
        (["198.51.100.0/24"], "::ffff:198.51.100.7", True),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["203.0.113.0/24"], HERE, False),
        (["203.0.113.0/24"], "::ffff:198.51.100.7", False),
        (["2001:db8::/32"], HERE, False),
        (["198.51.100.0/24"], None, False),
    ],
)
def test_it_is_used_from_its_networks_only(owner, networks, address, allowed):
    _, text = made(owner, networks=networks)

    if allowed:
        assert use_token(text, address)
    else:
        with pytest.raises(TokenRefused, match="from this address"):
            use_token(text, address)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scopes": []}, "without a scope"),
        ({"scopes": ["rules:read", "everything"]}, "no scope everything"),
        ({"networks": ["198.51.100.7/24"]}, "is no network"),
        ({"networks": ["example.org"]}, "is no network"),
        ({"networks": [f"10.0.{n}.0/24" for n in range(51)]}, "at most"),
        ({"name": " "}, "needs a name"),
    ],
)
def test_what_makes_no_sense_is_refused(owner, changes, message):
    with pytest.raises(TokenInvalid, match=message):
        made(owner, **changes)


def test_the_last_use_is_noted_once_a_minute(owner, django_assert_num_queries):
    token, text = made(owner)
    use_token(text, HERE)
    token.refresh_from_db()
    first = token.last_used_at

    with django_assert_num_queries(2):  # the token, and its owner
        use_token(text, "203.0.113.9")
    token.refresh_from_db()
    assert (token.last_used_at, token.last_used_address) == (first, HERE)

    Token.objects.update(last_used_at=now() - timedelta(seconds=61))
    use_token(text, "203.0.113.9")
    token.refresh_from_db()
    assert token.last_used_address == "203.0.113.9"


def test_a_refused_use_is_on_record_once_a_minute(owner):
    token, text = made(owner)
    revoke_token(token, actor=owner)

    for _ in range(3):
        with pytest.raises(TokenRefused, match="revoked"):
            use_token(text, HERE)

    assert acts().count("token.refused") == 1
    event = AuditEvent.objects.get(action="token.refused")
    assert (event.outcome, event.object_id) == ("refused", str(token.pk))


def test_texts_that_are_no_token_ask_the_database_nothing(django_assert_num_queries):
    with django_assert_num_queries(0), pytest.raises(TokenRefused):
        use_token("lks_" + "a" * 46, HERE)


def test_a_replaced_token_goes_on_for_a_while(owner):
    old, old_text = made(owner, networks=["198.51.100.0/24"])
    new, new_text_ = rotate_token(old, overlap_hours=2, actor=owner)

    assert (new.scopes, new.networks, new.name) == (old.scopes, old.networks, old.name)
    assert use_token(old_text, HERE)
    assert use_token(new_text_, HERE)
    old.refresh_from_db()
    assert old.expires_at <= now() + timedelta(hours=2)
    assert new.expires_at > now() + timedelta(days=29)
    with pytest.raises(TokenInvalid, match="replaced already"):
        rotate_token(old, overlap_hours=2, actor=owner)

    end, _ = rotate_token(new, overlap_hours=0, actor=owner)
    with pytest.raises(TokenRefused, match="expired"):
        use_token(new_text_, HERE)
    revoke_token(end, actor=owner)
    with pytest.raises(TokenInvalid, match="has ended"):
        rotate_token(end, overlap_hours=0, actor=owner)
    assert acts()[-4:] == ["token.rotated", "token.rotated", "token.refused", "token.revoked"]


def test_tokens_are_their_owners_alone(owner):
    token, _ = made(owner)
    root, other = administrator(), person("other")

    for actor in (root, other):
        with pytest.raises(PermissionDenied):
            made(owner, actor=actor)
        with pytest.raises(PermissionDenied):
            revoke_token(token, actor=actor)
        with pytest.raises(PermissionDenied):
            rotate_token(token, overlap_hours=0, actor=actor)


def test_a_program_makes_no_tokens(owner):
    _, text = made(owner, scopes=list(SCOPES))
    account, _ = use_token(text, HERE)

    with pytest.raises(PermissionDenied):
        made(owner, actor=account)


# Service accounts


def test_a_service_account_is_managed_by_whoever_holds_its_rights():
    manager = person("manager", "accounts.change_serviceaccount", "rules.run_rule")
    account = create_service_account("robot", actor=None)
    _, text = made(account, actor=manager)
    assert use_token(text, HERE)[0].is_service

    account.user_permissions.add(Permission.objects.get(codename="approve_run"))
    with pytest.raises(PermissionDenied):
        made(account, actor=manager)


def test_nobody_signs_in_as_a_service_account():
    account = create_service_account("robot", actor=None)
    client = Client()
    client.force_login(User.objects.get(pk=account.pk))

    assert client.get(reverse("admin:index")).status_code == 302
    for begin_anew in (
        lambda: invite(account, actor=None),
        lambda: issue_one_time_password(account),
    ):
        with pytest.raises(Exception, match="service account"):
            begin_anew()


# Pages


def fields(**changes: Any) -> dict[str, Any]:
    return {"name": "export", "scopes": ["rules:read"], "days": "30", "networks": "", **changes}


def test_a_person_makes_replaces_and_revokes_on_the_own_page(owner):
    client = signed_in(owner)
    page = client.post(reverse("admin:tokens"), fields(networks="198.51.100.0/24\n2001:db8::/32"))

    text = page.context["text"]
    assert text in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    token = Token.objects.get()
    assert token.networks == ["198.51.100.0/24", "2001:db8::/32"]
    assert text not in client.get(reverse("admin:tokens")).content.decode()

    page = client.post(reverse("admin:token_replace"), {"token": token.pk, "hours": "1"})
    assert is_well_formed(page.context["text"])
    client.post(reverse("admin:token_revoke"), {"token": token.pk})
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_the_form_says_what_is_wrong(owner):
    page = signed_in(owner).post(reverse("admin:tokens"), fields(days="9999", networks="x"))

    assert "1 to 365 days" in page.content.decode()
    assert not Token.objects.exists()


@pytest.mark.parametrize("name", ["tokens", "token_replace"])
def test_a_token_is_made_after_a_recent_sign_in_only(owner, name):
    token, _ = made(owner)
    client = signed_in(owner)
    session = client.session
    session[CONFIRMED_AT] = now().timestamp() - 24 * 3600
    session.save()

    answer = client.post(reverse(f"admin:{name}"), fields(token=token.pk, hours="1"))

    assert answer.url.startswith(reverse("admin:confirm"))
    assert Token.objects.count() == 1


def test_a_token_of_somebody_else_is_not_there(owner):
    token, _ = made(owner)
    client = signed_in(person("other"))

    for name in ("token_replace", "token_revoke"):
        answer = client.post(reverse(f"admin:{name}"), {"token": token.pk, "hours": "1"})
        assert answer.status_code == 404


def test_a_session_without_a_second_factor_makes_no_token(owner):
    client = Client()
    client.force_login(owner)

    assert client.post(reverse("admin:tokens"), fields()).status_code == 302
    assert not Token.objects.exists()


def test_an_administrator_makes_a_service_account_and_its_token():
    client = signed_in(administrator())
    client.post(
        reverse("admin:accounts_serviceaccount_add"), {"username": "carrier", "is_active": "on"}
    )
    account = ServiceAccount.objects.get()
    assert (account.is_staff, account.has_usable_password()) == (False, False)

    page = client.post(
        reverse("admin:accounts_serviceaccount_tokens", args=(account.pk,)), fields()
    )

    assert use_token(page.context["text"], HERE)[0].pk == account.pk
    people = client.get(reverse("admin:accounts_user_changelist")).content.decode()
    assert "carrier" not in people
    assert client.get(reverse("admin:accounts_user_change", args=(account.pk,))).status_code == 302
    assert {"service.created", "token.created"} <= set(acts())


def test_all_tokens_of_a_person_can_be_revoked_by_whoever_looks_after_people(owner):
    _, text = made(owner)
    client = signed_in(administrator())

    client.post(reverse("admin:accounts_user_do", args=(owner.pk, "revoke-tokens")))

    with pytest.raises(TokenRefused, match="revoked"):
        use_token(text, HERE)
    assert "token.voided" in acts()
