"""HTTP with an API: sending, waiting, trying again, and refusing what is no answer.

What failed is told apart by what it means for the request:

- it never got through (no connection, 429, 503 with Retry-After): it is tried again;
- nobody knows (no answer in time, a connection that breaks, 500 to 504): it is tried again where
  repeating does no harm, else `Interrupted` is raised and the caller finds out;
- it was refused (other statuses from 400 on): the caller is given the answer.

Redirects are not followed, and requests go to the origin of the base address alone: credentials
of one server are never shown to another.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from apps.connectors.errors import (
    ConnectionLost,
    LockstepError,
    TargetBusy,
    TlsFailed,
    Unreachable,
)
from apps.connectors.files.json_text import dump
from apps.connectors.outbound.http import checked_session
from apps.connectors.rest.answers import Answer, AnswerUnusable, judged, patience
from apps.connectors.rest.kept import keep, kept, name_of
from apps.connectors.rest.settings import RestSettings
from apps.connectors.rest.signing import OAuthSigner, Signer, simple_signer
from apps.connectors.rest.templates import form_pairs

sleep = time.sleep
_PIECE = 64 << 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0  # seconds
_TOTAL_TIMEOUTS = 10  # an answer that trickles in is given up after so many timeouts
_DEADLINE_SHARE = 0.8  # of what is left of a lease
_PASSING = (500, 502, 503, 504)


class Interrupted(ConnectionLost):
    """A request that must not be repeated blindly may have got through, or not."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. path: below the base address, or an address of the same origin.

    repeatable: sending it twice does no harm.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: bool = False
    repeatable: bool = True


class RestClient:
    """One API. Keeps its connections until `close`.

    deadline: seconds that are left for the work, such as of a lease.
    """

    def __init__(self, settings: RestSettings, deadline: Callable[[], float] | None = None) -> None:
        self._settings = settings
        self._deadline = deadline
        self._session = checked_session()
        self._session.trust_env = False
        self._base = f"{settings.api.url}/"
        self._origin = _origin(self._base)
        self._free_at = 0.0  # the API said that there are no requests left before
        self._signer: Signer = (
            OAuthSigner(settings, self._fetch_token)
            if settings.api.auth == "oauth2_client_credentials"
            else simple_signer(settings)
        )

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()

    def get(self, path: str, params: Mapping[str, str], *, etags: bool = False) -> Answer:
        """Read. etags: ask for what has changed since the same was read by this process."""
        headers = {}
        name = name_of(self._settings, path, params) if etags else ""
        known = kept(name) if etags else None
        if known is not None:
            headers["If-None-Match"] = known.headers["ETag"]
        answer = self.send(Call("GET", path, params, headers))
        if answer.status == 304 and known is not None:
            return known
        if etags and answer.ok and "ETag" in answer.headers:
            keep(name, answer)
        return answer

    def send(self, call: Call) -> Answer:
        """Send, as often as it takes; gives every answer that is the caller's to judge.

        Raises Unreachable, ConnectionLost, Interrupted, TargetBusy, SignInRefused,
        PermissionRefused, TlsFailed, AnswerUnusable.
        """
        renewed = False
        for attempt in range(self._settings.retries + 1):
            is_last = attempt == self._settings.retries
            self._wait_for_limit()
            try:
                answer = self._once(call)
                if answer.status == 401 and not renewed and self._signer.renew():
                    renewed = True
                    answer = self._once(call)
            except (Unreachable, ConnectionLost) as error:
                if is_last or isinstance(error, Interrupted):
                    raise
                self._pause(_backoff(attempt))
                continue
            self._note_limit(answer)
            seconds = patience(answer, is_limited=self._free_at > time.time())
            if seconds is not None:
                self._wait(answer, seconds or _backoff(attempt), is_last)
            elif answer.status in _PASSING:
                if not call.repeatable:
                    raise Interrupted(
                        f"{answer.problem()}, nobody knows what it did", where=answer.url
                    )
                if is_last:
                    raise ConnectionLost(answer.problem(), where=answer.url)
                self._pause(_backoff(attempt))
            else:
                return judged(answer)
        raise ConnectionLost("no answer", where=self._base)

    def _once(self, call: Call) -> Answer:
        request = self._prepared(call)
        self._signer.sign(request)
        shown = _without_query(str(request.url))
        never_sent: tuple[type[Exception], ...] = (NewConnectionError, NameResolutionError)
        try:
            with self._session.send(
                request, stream=True, timeout=self._timeout(), allow_redirects=False
            ) as response:
                return Answer(response.status_code, response.headers, self._body(response), shown)
        except LockstepError:
            raise
        except requests.exceptions.SSLError:
            raise TlsFailed("the certificate of the server is not accepted", where=shown) from None
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            if isinstance(error, requests.exceptions.ConnectTimeout) or _is_of(error, never_sent):
                raise Unreachable(f"no connection ({_kind(error)})", where=shown) from None
            if isinstance(error, requests.exceptions.InvalidURL):
                raise AnswerUnusable("this is no address", where=shown) from None
            lost = ConnectionLost if call.repeatable else Interrupted
            raise lost(f"the connection broke ({_kind(error)})", where=shown) from None

    def _prepared(self, call: Call) -> requests.PreparedRequest:
        url = self.address(call.path)
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            **self._settings.api.headers,
            **call.headers,
        }
        data: str | None = None
        if call.body is not None and call.form:
            data = urlencode(form_pairs(call.body))
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif call.body is not None:
            data = dump(call.body)
            headers.setdefault("Content-Type", "application/json")
        encoded = data.encode() if data is not None else None
        return self._session.prepare_request(
            requests.Request(call.method, url, headers, data=encoded, params=dict(call.params))
        )

    def address(self, path: str) -> str:
        """The address of a path below the base, or one that the API gave; of its origin only."""
        url = path if "://" in path else urljoin(self._base, path.lstrip("/"))
        if _origin(url) != self._origin:
            raise AnswerUnusable(
                f"the API leads to another server, {urlsplit(url).hostname}", where=self._base
            )
        return url

    def _timeout(self) -> float:
        left = self._deadline() * _DEADLINE_SHARE if self._deadline else float("inf")
        return max(min(float(self._settings.timeout), left), 0.1)

    def _body(self, response: requests.Response) -> bytes:
        """The decompressed body, of bounded size and in bounded time."""
        ends = time.monotonic() + _TOTAL_TIMEOUTS * self._settings.timeout
        parts, size = [], 0
        for part in response.iter_content(_PIECE):
            parts.append(part)
            size += len(part)
            if size > self._settings.max_answer:
                raise AnswerUnusable(
                    f"the answer is larger than {self._settings.max_answer_mib} MiB",
                    where=_without_query(str(response.url)),
                    remedy="Ask for smaller pages, or allow larger answers in the source.",
                )
            if time.monotonic() > ends:
                raise TimeoutError("the answer trickles in")
        return b"".join(parts)

    # Limits.

    def _note_limit(self, answer: Answer) -> None:
        limit = self._settings.api.rate_limit
        left = answer.headers.get(limit.remaining_header, "")
        reset = answer.headers.get(limit.reset_header, "")
        if left.strip() == "0" and reset.strip().isdigit():
            moment = float(reset)
            self._free_at = moment if limit.reset == "epoch" else time.time() + moment

    def _wait_for_limit(self) -> None:
        seconds = self._free_at - time.time()
        if seconds > 0:
            self._require_patience(seconds, self._base)
            self._pause(seconds)
        self._free_at = 0.0

    def _wait(self, answer: Answer, seconds: float, is_last: bool) -> None:
        if is_last:
            raise TargetBusy(f"{answer.problem()}, again and again", where=answer.url)
        self._require_patience(seconds, answer.url)
        self._pause(seconds)

    def _require_patience(self, seconds: float, where: str) -> None:
        left = self._deadline() * _DEADLINE_SHARE if self._deadline else float("inf")
        if seconds > min(self._settings.longest_wait, left):
            raise TargetBusy(f"the API asks to wait for {seconds:,.0f} seconds", where=where)

    @staticmethod
    def _pause(seconds: float) -> None:
        sleep(seconds)

    def _fetch_token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """Ask for a token; with a session of its own, which is no API's."""
        url = self._settings.api.token_url
        try:
            with checked_session() as session:
                session.trust_env = False
                response = session.post(
                    url,
                    data=form,
                    headers={"Authorization": authorization, "Accept": "application/json"},
                    timeout=self._timeout(),
                    allow_redirects=False,
                    stream=True,
                )
                answer = Answer(response.status_code, response.headers, self._body(response), url)
        except LockstepError:
            raise
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            raise Unreachable(f"no token was given ({_kind(error)})", where=url) from None
        return answer.status, (answer.json() if answer.data else None)


def _backoff(attempt: int) -> float:
    pause = min(_FIRST_PAUSE * 2.0**attempt, _LONGEST_PAUSE)
    return pause * random.uniform(0.5, 1.0)  # noqa: S311  # nosec B311  # spreads workers, keeps no secret


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname or "", port


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _is_of(error: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    """Whether one of these is what lies behind the error."""
    waiting: list[Any] = [error]
    for _ in range(20):
        if not waiting:
            return False
        current = waiting.pop()
        if isinstance(current, kinds):
            return True
        waiting += [
            part
            for part in (*getattr(current, "args", ()), getattr(current, "reason", None))
            if isinstance(part, BaseException)
        ]
    return False


def _kind(error: BaseException) -> str:
    return {
        "ReadTimeout": "no answer in time",
        "ConnectTimeout": "no connection in time",
        "TimeoutError": "no answer in time",
        "ChunkedEncodingError": "the answer is cut off",
    }.get(type(error).__name__, type(error).__name__)
