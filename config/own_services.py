"""The way to the platform's own database, broker and mail server: TLS, and with whom.

Passwords, sessions and who may do what pass there. On the same machine they may pass in clear;
to another machine only over TLS that checks the certificate and the name in it.
"""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CHECKED_MODES = ("verify-full", "verify-ca")
PLAIN_BROKERS = ("amqp", "pyamqp", "redis", "sentinel")
TLS_BROKERS = ("amqps", "rediss")
# Options in the address of a broker, and what redis-py and py-amqp call them.
TLS_OPTIONS = {
    "ssl_ca_certs": "ca_certs",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
}
CERT_REQS = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def is_here(host: str) -> bool:
    """Whether a host is this machine: a loopback address, or the folder of a socket."""
    if host.startswith("/") or host.lower().rstrip(".") in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def database_is_guarded(url: str) -> bool:
    """Whether the database is here, or reached over TLS with a checked certificate."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    named = [unquote(parts.hostname or ""), options.get("host", ""), options.get("hostaddr", "")]
    hosts = [host for names in named for host in names.split(",") if host]
    return all(map(is_here, hosts)) or options.get("sslmode") in CHECKED_MODES


def postgresql_database(url: str) -> dict[str, object]:
    """What Django takes, from an address. Raises ValueError, which shows no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text would show a part of the password
        raise ValueError("DATABASE_URL: write special characters of the password as %XX") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("DATABASE_URL must begin with postgresql://")
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise ValueError("DATABASE_URL must end with the name of a database")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def broker_is_guarded(url: str) -> bool:
    """Likewise for the broker, and for each of several with `;` between them."""
    return all(_one_broker_is_guarded(urlsplit(one)) for one in url.split(";"))


def _one_broker_is_guarded(parts: SplitResult) -> bool:
    scheme = parts.scheme
    if scheme not in (*PLAIN_BROKERS, *TLS_BROKERS) or is_here(parts.hostname or "localhost"):
        return True
    options = dict(parse_qsl(parts.query))
    checked = _cert_reqs(options) is ssl.CERT_REQUIRED
    return scheme in TLS_BROKERS and checked and options.get("ssl_check_hostname") != "false"


def _cert_reqs(options: dict[str, str]) -> ssl.VerifyMode:
    word = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    return CERT_REQS.get(word, ssl.CERT_REQUIRED)


def without_tls_options(url: str) -> str:
    """The broker's address as Celery takes it; what it says of TLS is given by `broker_tls`."""
    parts = urlsplit(url)
    if parts.scheme not in TLS_BROKERS:
        return url
    kept = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def broker_tls(url: str) -> dict[str, object] | None:
    """Celery's `broker_use_ssl`: the certificate and its name are checked unless the address says
    otherwise. None where the address is not one of TLS.
    """
    parts = urlsplit(url)
    if parts.scheme not in TLS_BROKERS:
        return None
    options = dict(parse_qsl(parts.query))
    reqs = _cert_reqs(options)
    by_name = reqs is not ssl.CERT_NONE and options.get("ssl_check_hostname") != "false"
    files = {name: options[name] for name in TLS_OPTIONS if options.get(name)}
    if parts.scheme == "rediss":
        return {"ssl_cert_reqs": reqs, "ssl_check_hostname": by_name, **files}
    given: dict[str, object] = {TLS_OPTIONS[name]: path for name, path in files.items()}
    name = {"server_hostname": parts.hostname} if by_name else {}
    return {"cert_reqs": reqs, **name, **given}


def mail_server(url: str, sender: str | None) -> dict[str, object]:
    """What Django takes, from an address: `smtps://…`, or `smtp://…` which begins TLS by STARTTLS.

    In clear to this machine only. Raises ValueError, which shows no password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text would show a part of the password
        raise ValueError("MAIL_URL: write special characters of the password as %XX") from None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("MAIL_URL must begin with smtps:// or smtp://, and name a host")
    if not sender or "@" not in sender:
        raise ValueError("LOCKSTEP_MAIL_FROM: give the address that messages come from")
    at_once = parts.scheme == "smtps"
    return {
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": port or (465 if at_once else 587),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": at_once,
        "EMAIL_USE_TLS": not at_once and not is_here(parts.hostname),
        "EMAIL_TIMEOUT": 15,
        "DEFAULT_FROM_EMAIL": sender,
    }
