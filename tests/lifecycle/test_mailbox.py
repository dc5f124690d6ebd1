"""The mailbox: events in order, the latest listing first, none lost without a word."""

from __future__ import annotations

from inferd.server.lifecycle.reconcile.events import ListingSeen, PreloadFinished, StopRequested
from inferd.server.lifecycle.reconcile.mailbox import Mailbox
from inferd.server.repository.disk import Listing


def test_events_come_in_order_and_the_latest_listing_first() -> None:
    mailbox = Mailbox()
    old, new = ListingSeen(Listing(sequence=1)), ListingSeen(Listing(sequence=2))
    for event in (PreloadFinished(), old, StopRequested(), new):
        assert mailbox.post(event)
    assert not mailbox.empty
    assert [mailbox.take() for _ in range(4)] == [new, PreloadFinished(), StopRequested(), None]
    assert mailbox.empty


def test_a_mailbox_does_not_close_while_an_event_waits() -> None:
    mailbox = Mailbox()
    mailbox.post(PreloadFinished())
    assert not mailbox.close_if_empty()
    assert mailbox.post(StopRequested())
    mailbox.take()
    mailbox.take()
    assert mailbox.close_if_empty()
    assert not mailbox.post(StopRequested())


def test_events_in_a_closed_mailbox_can_be_taken() -> None:
    mailbox = Mailbox()
    mailbox.post(PreloadFinished())
    mailbox.close()
    assert not mailbox.post(StopRequested())
    assert mailbox.take() == PreloadFinished()


def test_an_event_ends_a_wait() -> None:
    mailbox = Mailbox()
    mailbox.prepare_wait()
    mailbox.post(PreloadFinished())
    mailbox.wait(None)
