"""Clients: they dispatch, repeat, cancel and replay as the plan says, and do not give up at an outage."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import amqp
import requests

from chiffon.devstack import unproxied
from tests.chaos.plan import Errand, Order
from tests.chaos.promises import Promises, Said, Sent
from tests.chaos.stand import Stand
from tests.e2e.messages import AS_JSON, envelope
from tests.e2e.raw_amqp import RawAmqp

PATIENCE = 120.0
"""Seconds for which a client repeats what was not answered."""

_TIMEOUT = 8.0
_PAUSE = 0.7
_AGAIN = frozenset({502, 503, 504})
_AWAY = (OSError, amqp.AMQPError)


class Api:
    """The API by HTTP, for one thread."""

    def __init__(self, stand: Stand, promises: Promises) -> None:
        self._url = stand.api_url
        self._headers = {"Authorization": f"Bearer {stand.api_key}"}
        self._session = unproxied.session()
        self._promises = promises

    def insist(
        self, path: str, body: Mapping[str, Any] | None, *, within: float = PATIENCE, **headers: str
    ) -> tuple[requests.Response | None, int]:
        """POST until there is an answer that is none of an outage; it, and how often that took."""
        deadline = time.monotonic() + within
        asked = 0
        while time.monotonic() < deadline:
            asked += 1
            answer = self.ask(path, body, **headers)
            if answer is not None and answer.status_code not in _AGAIN:
                return answer, asked
            time.sleep(_PAUSE)
        return None, asked

    def ask(self, path: str, body: Mapping[str, Any] | None, **headers: str) -> requests.Response | None:
        """POST once. None: there was no answer, so that nobody knows."""
        try:
            answer = self._session.post(self._url + path, json=body, headers=self._headers | headers, timeout=_TIMEOUT)
        except requests.RequestException:
            return None
        if answer.status_code >= 500 and answer.status_code not in _AGAIN:
            self._promises.surprises.append(f"POST {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def look(self, path: str, **query: Any) -> Any:
        """GET, or None."""
        try:
            answer = self._session.get(self._url + path, params=query, headers=self._headers, timeout=_TIMEOUT)
            return answer.json() if answer.status_code == 200 else None
        except requests.RequestException:
            return None


class Client:
    """Does its errands one after the other, each no sooner than its time."""

    def __init__(self, stand: Stand, promises: Promises, errands: Sequence[Errand], began: float) -> None:
        self._api = Api(stand, promises)
        self._amqp: RawAmqp = stand.amqp
        self._promises = promises
        self._errands = errands
        self._began = began
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._verbs = {
            "dispatch": self._dispatch,
            "batch": self._batch,
            "direct": self._direct,
            "cancel": self._cancel,
            "replay": self._replay,
            "replay_letter": self._replay_letter,
            "discard_letter": self._discard_letter,
        }

    def stop(self) -> None:
        """Leave the rest undone."""
        self._over.set()

    def _run(self) -> None:
        for errand in self._errands:
            if self._over.wait(max(0.0, self._began + errand.at - time.monotonic())):
                return
            try:
                self._verbs[errand.verb](errand)
            except Exception as error:  # noqa: BLE001 -- a client's own mistake is to be seen
                self._promises.surprises.append(f"{errand.verb}: {error!r}")

    def _dispatch(self, errand: Errand) -> None:
        order = errand.orders[0]
        for _ in range(1 + errand.repeats):
            answer, asked = self._api.insist("/dispatch", _body(order))
            if answer is None:
                self._promises.given_up.append(order)
            elif answer.status_code in {200, 202}:
                self._accepted(order, answer.json(), answer.status_code, asked)
            else:
                self._surprise(order, answer.status_code, answer.text)

    def _batch(self, errand: Errand) -> None:
        body = {"tasks": [_body(order) for order in errand.orders]}
        for _ in range(1 + errand.repeats):
            answer, asked = self._api.insist("/dispatch/batch", body)
            if answer is None:
                self._promises.given_up += errand.orders
            elif answer.status_code != 202:
                self._surprise(errand.orders[0], answer.status_code, answer.text)
            else:
                for order, item in zip(errand.orders, answer.json()["items"], strict=True):
                    if item["code"] in {200, 202}:
                        self._accepted(order, item, item["code"], asked)
                    else:
                        self._surprise(order, item["code"], str(item))

    def _direct(self, errand: Errand) -> None:
        order = errand.orders[0]
        task_id = str(uuid.uuid5(uuid.NAMESPACE_OID, order.request_id))
        message = envelope(order.work_type, order.parameters, task_id=task_id, request_id=order.request_id)
        for attempt in range(1 + errand.repeats):
            try:
                self._amqp.publish_json(message, **AS_JSON)
            except _AWAY:
                self._promises.sent.append(Sent(task_id, order, time.time(), confirmed=False))
                time.sleep(_PAUSE)
            else:
                self._promises.sent.append(Sent(task_id, order, time.time(), confirmed=True))
                if attempt:
                    return

    def _cancel(self, errand: Errand) -> None:
        recent = self._promises.ids()[-30:]
        if recent:
            self._say("cancel", recent[int(errand.pick * len(recent))])

    def _replay(self, errand: Errand) -> None:
        status = ("failed", "cancelled", "expired", "dead_lettered")[int(errand.pick * 4)]
        listed = self._api.look("/tasks", status=status, limit=20)
        found = [task["task_id"] for task in (listed or {"items": []})["items"]]
        if found:
            self._say("replay", found[int(errand.pick * 1_000) % len(found)])

    def _replay_letter(self, errand: Errand) -> None:
        self._handle_letter("replay", errand)

    def _discard_letter(self, errand: Errand) -> None:
        self._handle_letter("discard", errand)

    def _handle_letter(self, verb: str, errand: Errand) -> None:
        listed = self._api.look("/tasks", status="failed", limit=20)
        found = [task["task_id"] for task in (listed or {"items": []})["items"]]
        if found:
            task_id = found[int(errand.pick * len(found))]
            answer = self._api.ask(f"/dead-letters/{verb}", {"filter": {"task_id": task_id}})
            self._note(f"{verb}_letter", task_id, answer)

    def _say(self, verb: str, task_id: str) -> None:
        self._note(verb, task_id, self._api.ask(f"/tasks/{task_id}/{verb}", None))

    def _note(self, verb: str, task_id: str, answer: requests.Response | None) -> None:
        code = None if answer is None else answer.status_code
        self._promises.said.append(Said(verb, task_id, code, time.time()))

    def _accepted(self, order: Order, answer: Mapping[str, Any], code: int, asked: int) -> None:
        self._promises.accept(answer["task_id"], order, duplicate=code == 200, asked=asked)

    def _surprise(self, order: Order, code: int, text: str) -> None:
        self._promises.surprises.append(f"{order.request_id} ({order.work_type}) was answered {code}: {text[:300]}")


def _body(order: Order) -> dict[str, Any]:
    return {
        "work_type": order.work_type,
        "parameters": order.parameters,
        "request_id": order.request_id,
        **order.fields,
    }
