"""One member of the consumer group, driven by one thread.

What kafka-python leaves to us: leases, so that work done under an assignment that is over can be told from
work that still counts; going back to the committed offsets after every rebalance and every failed
transaction (kafka-python keeps positions and pause flags over both); records that the client cannot read
(its next `poll` after such a record never returns); and telling whether the membership is worth anything.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import (
    CorruptRecordError,
    FencedInstanceIdError,
    KafkaError,
    KafkaTimeoutError,
    UnsupportedCodecError,
)
from kafka.structs import MemberState

from damagewatch.broker.errors import FencedError, sorted_out
from damagewatch.broker.options import KafkaOptions
from damagewatch.broker.record import Partition, Record
from damagewatch.broker.transaction import Membership
from damagewatch.domain import DependencyDownError

_log = logging.getLogger(__name__)

_REWIND_WAIT = 1.0
_PROBE_MS = 5000
_SILENT = 1.0
"""Seconds within which a member of a stable group begins with its heartbeats, at the latest."""
_PROBE_MOST = 100
"""Unreadable records that are looked for at once: the poll thread waits meanwhile."""


class GroupConsumer:
    """Reads `topics` as a member of the group `options.group`.

    The member is static (`group.instance.id` is the worker's name). A restarted worker then takes its own
    place back at once, where a dynamic one would wait for the session of its dead former self to time out;
    and the broker checks offsets even of a member that forgot its generation. The price is that a static
    member never leaves by itself, so `close` takes it out of the group by name: scaling in does not leave
    partitions unread.

    All methods belong to the thread that made the first call.
    """

    def __init__(
        self,
        options: KafkaOptions,
        topics: Sequence[str],
        *,
        make_consumer: Callable[..., Any] = KafkaConsumer,
    ) -> None:
        self._options = options
        self._topics = tuple(topics)
        self._make_consumer = make_consumer
        self._consumer: Any = None
        self._listener = _Listener()
        self._rebalances = 0
        self._thread = 0
        self._tokens = itertools.count(1)
        self._leases: dict[Partition, int] = {}
        self._membership: Membership | None = None
        self._silent_since: float | None = None
        self._subscribed = False
        self._held = False
        self._rewind_due = False
        self._starts: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}
        self._unreadable: dict[tuple[Partition, int], str] = {}

    @property
    def leases(self) -> Mapping[Partition, int]:
        """The partitions that are ours now, each with the token of this assignment."""
        return MappingProxyType(self._leases)

    @property
    def membership(self) -> Membership | None:
        """Who we were in the group right after the last `poll`; None while the group is not stable.

        Not asked anew at the time of a commit: a rebalance that began meanwhile must make the broker refuse
        what was made before it.
        """
        return self._membership

    @property
    def starts(self) -> Mapping[Partition, int]:
        """Where each of our partitions was read from since the last rebalance or rewind: committed offsets."""
        return MappingProxyType(self._starts)

    def poll(self, timeout: float) -> list[Record]:
        """Waits up to `timeout` seconds for records, and keeps the membership alive.

        Returns nothing while paused, and nothing from before a rebalance.

        Raises:
            DependencyDownError: Kafka cannot be reached, or an error came up that is no single record's
                fault. The consumer was rebuilt; poll again after a while.
            FencedError: another worker took our place.
        """
        self._check_thread()
        if self._consumer is None:
            self._open()
        if self._rewind_due:
            self._try_rewind()
        if defects := self._defects():
            return defects
        try:
            polled = self._consumer.poll(timeout_ms=round(timeout * 1000))
        except Exception as error:
            self._recover(error)
            return []
        self._membership = self._current_membership()
        self._check_replaced()
        if (rebalances := self._listener.rebalances) != self._rebalances:
            self._rebalances = rebalances
            self._new_leases()
        return [] if self._rewind_due else self._records(polled)

    def pause(self) -> None:
        """Takes no more records. `poll` must be called all the same."""
        self._check_thread()
        self._held = True
        self._apply_pause()

    def resume(self) -> None:
        """Takes records again."""
        self._check_thread()
        self._held = False
        self._apply_pause()

    def rewind(self) -> None:
        """Goes back to the committed offsets, under new leases: all that was delivered so far is void.

        Done by the next calls of `poll`, which return nothing until it is done.
        """
        self._check_thread()
        self._new_leases()

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Takes note of offsets that a transaction has committed: what lies before them will not come again."""
        self._committed.update(offsets)
        for source, offset in [known for known in self._unreadable if known[1] < offsets.get(known[0], 0)]:
            del self._unreadable[source, offset]

    def lag(self, timeout: float = 1.0) -> dict[Partition, int]:
        """Records of our partitions that are written and readable, and not committed by us.

        Empty where the broker does not answer in time. Counted in offsets, markers of transactions included,
        so with transactional senders it may rest slightly above 0.
        """
        self._check_thread()
        if self._consumer is None or not self._committed:
            return {}
        try:
            ends = self._consumer.end_offsets(
                [TopicPartition(*source) for source in self._committed], timeout_ms=round(timeout * 1000)
            )
        except KafkaError:
            return {}
        found = {Partition(*tp): end for tp, end in ends.items()}
        return {
            source: max(0, found[source] - offset)
            for source, offset in self._committed.items()
            if source in found
        }

    def close(self, timeout: float, *, leave: bool = True) -> None:
        """Ends the membership within about `timeout` seconds.

        With `leave` the other members get our partitions at once; without, they wait for our return until
        the session times out.
        """
        self._check_thread()
        member = self._membership.member if self._membership else None
        self._drop_consumer(timeout)
        if leave and self._subscribed:
            self._leave(member, timeout)
        self._subscribed = False

    def _check_thread(self) -> None:
        current = threading.get_ident()
        self._thread = self._thread or current
        if current != self._thread:
            raise RuntimeError("a GroupConsumer belongs to one thread")

    def _open(self) -> None:
        try:
            consumer = self._make_consumer(**self._options.group_arguments())
        except KafkaError as error:
            raise sorted_out(error, "connecting a consumer") from error
        self._listener = _Listener(consumer)
        self._rebalances = 0
        self._subscribed = True
        consumer.subscribe(topics=list(self._topics), listener=self._listener)
        try:
            self._await_topics(consumer)
        except DependencyDownError:
            consumer.close(autocommit=False)
            raise
        self._consumer = consumer

    def _await_topics(self, consumer: Any) -> None:
        """Waits until the client knows the topics, since it would join the group without them.

        kafka-python forgets that it wanted new topics when an older metadata request is answered meanwhile,
        and then sits without partitions until the next refresh, five minutes later.
        """
        cluster = consumer._cluster
        deadline = time.monotonic() + self._options.connect_timeout
        while missing := [name for name in self._topics if not cluster.partitions_for_topic(name)]:
            if time.monotonic() > deadline:
                raise DependencyDownError("kafka", f"no such topic, or no right to it: {', '.join(missing)}")
            cluster.request_update()
            time.sleep(0.05)

    def _drop_consumer(self, timeout: float) -> None:
        consumer, self._consumer = self._consumer, None
        self._leases = {}
        self._committed = {}
        self._next = {}
        self._membership = None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=round(timeout * 1000))
            except KafkaError as error:
                _log.warning("closing a consumer: %s", error)

    def _leave(self, member: str | None, timeout: float) -> None:
        # With the member id, a successor that has our name by now would stay. In the middle of joining we do
        # not know ours yet; then even a successor is removed, which joins again at once.
        leaving = MemberToRemove(member_id=member, group_instance_id=self._options.worker)
        arguments = self._options.admin_arguments() | {"bootstrap_timeout_ms": max(1, round(timeout * 1000))}
        try:
            client = KafkaAdminClient(**arguments)
            try:
                told = client.remove_group_members(self._options.group, [leaving])
                _log.info("left the group %s: %s", self._options.group, told)
            finally:
                client.close()
        except KafkaError as error:
            _log.warning("leaving the group %s: %s", self._options.group, error)

    def _current_membership(self) -> Membership | None:
        now = self._consumer.group_metadata()
        if now.state != MemberState.STABLE or now.generation_id <= 0 or not now.member_id:
            return None
        return Membership(now.group_id, now.generation_id, now.member_id, now.group_instance_id)

    def _check_replaced(self) -> None:
        """Tells that another worker has our name. kafka-python then stops its heartbeats, and `poll` goes on as
        if we were still a member: an idle stream would never learn of it.
        """
        if self._membership is None or self._consumer._coordinator._heartbeat_enabled:
            self._silent_since = None
            return
        now = time.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since > _SILENT:
            raise FencedError("another worker has taken this worker's place in the group")

    def _new_leases(self) -> None:
        self._leases = {source: next(self._tokens) for source in sorted(self._listener.assigned)}
        self._rewind_due = bool(self._leases)
        self._committed = {}
        self._next = {}
        self._apply_pause()

    def _apply_pause(self) -> None:
        if self._consumer is None:
            return
        partitions = [TopicPartition(*source) for source in self._leases]
        if self._held or self._rewind_due:
            self._consumer.pause(*partitions)
        else:
            self._consumer.resume(*partitions)

    def _try_rewind(self) -> None:
        """Seeks every partition to its committed offset. While another's transaction is open, it waits."""
        deadline = time.monotonic() + _REWIND_WAIT
        found: dict[Partition, int] = {}
        try:
            for source in self._leases:
                left = max(1, round((deadline - time.monotonic()) * 1000))
                offset = self._consumer.committed(TopicPartition(*source), timeout_ms=left)
                if offset is None:
                    tp = TopicPartition(*source)
                    offset = self._consumer.beginning_offsets([tp], timeout_ms=left)[tp]
                found[source] = offset
        except KafkaTimeoutError:
            return
        except KafkaError as error:
            raise sorted_out(error, "reading committed offsets") from error
        for source, offset in found.items():
            self._consumer.seek(TopicPartition(*source), offset)
        self._starts = dict(found)
        self._committed = dict(found)
        self._next = dict(found)
        self._rewind_due = False
        self._apply_pause()

    def _records(self, polled: Mapping[Any, Sequence[Any]]) -> list[Record]:
        records: list[Record] = []
        for tp, messages in polled.items():
            source = Partition(*tp)
            lease = self._leases.get(source)
            if lease is None or not messages:
                continue
            topic_id = str(self._consumer._cluster.topic_id(source.topic) or "")
            records.extend(
                Record(
                    topic=source.topic,
                    partition=source.number,
                    offset=message.offset,
                    timestamp_ms=message.timestamp,
                    key=_bytes(message.key),
                    value=_bytes(message.value),
                    headers=tuple((name, _bytes(value) or b"") for name, value in message.headers),
                    lease=lease,
                    topic_id=topic_id,
                )
                for message in messages
            )
            self._next[source] = messages[-1].offset + 1
        return records

    def _defects(self) -> list[Record]:
        """The unreadable records whose turn it is: passed over in the client, delivered with their defect."""
        if self._held or self._rewind_due or not self._unreadable:
            return []
        records = []
        for source, lease in self._leases.items():
            offset = self._next.get(source, -1)
            defect = self._unreadable.get((source, offset))
            if defect is None:
                continue
            self._consumer.seek(TopicPartition(*source), offset + 1)
            self._next[source] = offset + 1
            topic_id = str(self._consumer._cluster.topic_id(source.topic) or "")
            records.append(
                Record(
                    topic=source.topic,
                    partition=source.number,
                    offset=offset,
                    timestamp_ms=-1,
                    key=None,
                    value=None,
                    headers=(),
                    lease=lease,
                    topic_id=topic_id,
                    defect=defect,
                )
            )
        return records

    def _recover(self, error: Exception) -> None:
        """After an exception from the client's `poll`: a new client, and the culprit found if it is a record.

        The old client would hang at its next `poll`, so it is not asked which record it was.
        """
        position = dict(self._next)
        self._drop_consumer(timeout=self._options.request_timeout)
        if isinstance(error, FencedInstanceIdError):
            raise sorted_out(error, "polling") from error
        found = {
            (source, offset): defect
            for source, first in position.items()
            for offset, defect in self._probe(source, first).items()
        }
        self._unreadable.update(found)
        for (source, offset), defect in found.items():
            _log.error("unreadable record %s[%d]@%d: %s", source.topic, source.number, offset, defect)
        if not found:
            reason = error if isinstance(error, KafkaError) else KafkaError(repr(error))
            raise sorted_out(reason, "polling") from error

    def _probe(self, source: Partition, offset: int) -> dict[int, str]:
        """The unreadable records from `offset` up to the first good one, each with what came up against it.

        With a client of its own, and one offset further each time: records written as one batch have one
        checksum, so where one is spoiled all are.

        What Kafka itself answers with an error (not authorised, its disk broken ...) is no record's fault: it
        must not make dead letters of good records.
        """
        found: dict[int, str] = {}
        tp = TopicPartition(*source)
        try:
            probe = self._make_consumer(**self._options.consumer_arguments())
        except KafkaError as error:
            raise sorted_out(error, "connecting a consumer") from error
        try:
            probe.assign([tp])
            end = probe.end_offsets([tp], timeout_ms=_PROBE_MS)[tp]
            for bad in range(offset, min(end, offset + _PROBE_MOST)):
                probe.seek(tp, bad)
                defect = _defect(probe)
                if defect is None:
                    break
                found[bad] = defect
        except KafkaError as error:
            raise sorted_out(error, "looking for an unreadable record") from error
        finally:
            probe.close(autocommit=False)
        return found


def _defect(probe: Any) -> str | None:
    """What comes up against the record at the probe's position; None where it is good."""
    try:
        probe.poll(timeout_ms=_PROBE_MS, max_records=1)
    except (CorruptRecordError, UnsupportedCodecError) as error:
        return f"{type(error).__name__}: {error}"
    except KafkaError:
        raise
    except Exception as error:  # what it meets while it takes a record apart
        return f"{type(error).__name__}: {error}"
    return None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what happened, and holds back what was assigned until it is sought to its committed offset.

    It is called on the client's I/O thread while the poll thread waits in `poll`, so it must not wait itself;
    pausing only sets a flag.
    """

    def __init__(self, consumer: Any = None) -> None:
        self._consumer = consumer
        self.rebalances = 0
        self.assigned: frozenset[Partition] = frozenset()

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.rebalances += 1
        self.assigned = frozenset()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.rebalances += 1
        self.assigned = frozenset(Partition(*tp) for tp in assigned)
        self._consumer.pause(*assigned)

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else bytes(value)
