"""`lockstep token …`: tokens from a shell."""

from __future__ import annotations

import pytest

from apps.accounts.models import ServiceAccount, Token
from apps.accounts.services import TokenRefused, use_token
from tests.console.test_command_line import Answer
from tests.people import person

pytestmark = pytest.mark.django_db


def test_a_token_is_made_listed_replaced_and_revoked():
    words = ("robot", "nightly", "runs:start", "runs:read", "--service", "API client")
    answer = Answer("token", "create", *words, "--network", "192.0.2.0/24")
    text = answer.out.strip()
    account, token = use_token(text, "192.0.2.1")
    assert ServiceAccount.objects.get().groups.get().name == "API client"
    assert account.pk == ServiceAccount.objects.get().pk

    listed = Answer("token", "list", "robot")
    assert str(token.pk) in listed.out
    assert text not in listed.out
    found = Answer("token", "list", "--json").json
    assert [row["scopes"] for row in found] == [["runs:read", "runs:start"]]

    new = Answer("token", "rotate", str(token.pk), "--overlap", "0", "--json").json
    assert use_token(new["text"], "192.0.2.1")
    with pytest.raises(TokenRefused):
        use_token(text, "192.0.2.1")
    assert Answer("token", "revoke", new["id"]).code == 0
    assert Token.objects.get(pk=new["id"]).state == "revoked"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "nobody", "x", "runs:read"), "no account 'nobody'"),
        (("create", "robot", "x", "runs:read", "--service", "Boss"), "no role 'Boss'"),
        (("create", "ada", "x", "runs:read"), "second factor"),
        (("rotate", "1"), "no token '1'"),
        (("revoke", "1"), "no token '1'"),
    ],
)
def test_what_cannot_be_done_is_said(words, says):
    person("ada")

    answer = Answer("token", *words)

    assert answer.code != 0
    assert says in answer.err
