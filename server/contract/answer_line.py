"""The line of an answer's event by splicing: what an arm of a route says in every line is encoded once.

A line equals ``encode_event`` of the same values byte for byte and takes a third to a half of the time, for most
of that goes into building the records. It is for answers that went well; what has an error, a fallback or
columns that are hidden goes by ``encode_event``.
"""

from datetime import datetime

import msgspec

from server.contract.events import Answer, Prediction, Shadow, source_of

# An answer of whose encoding only the members between the first three and the last two are wanted.
_FIRST, _LAST = b'{"model":"","version":"","role":"champion"', b',"latency_us":0,"rows":0}'

_encode = msgspec.json.Encoder().encode


class AnswerLine:
    """Makes the lines of answers that one version gives in one role by one rule."""

    __slots__ = ("_after_bucket", "_after_id", "_before_bucket", "_before_id", "_cut_end", "_end")

    def __init__(self, kind: type[Prediction | Shadow], answer: Answer) -> None:
        """kind: of event; answer: its model, version, role, rule, share, propensity, revision and weight are those of
        every line, its other members are passed over.
        """
        # Encoded as members of an answer, for a member is left out where it is its default, not where it equals it.
        head = Answer(
            model=answer.model,
            version=answer.version,
            role=answer.role,
            rule=answer.rule,
            share=answer.share,
            latency_us=0,
            rows=0,
        )
        middle = Answer(
            model="",
            version="",
            role="champion",
            propensity=answer.propensity,
            revision=answer.revision,
            latency_us=0,
            rows=0,
        )
        last = Answer(model="", version="", role="champion", latency_us=0, rows=0, weight=answer.weight)
        self._before_id = b'{"type":%b,"specversion":"1.0","id":' % _encode(kind.__struct_config__.tag)
        self._after_id = b',"source":%b,"time":' % _encode(source_of(answer.model, answer.version))
        self._before_bucket = b',"datacontenttype":"application/json","data":' + _encode(head).removesuffix(_LAST)
        between = _encode(middle).removeprefix(_FIRST).removesuffix(_LAST)
        self._after_bucket = between + b',"latency_us":'
        weight = _encode(last).removeprefix(_FIRST + _LAST[:-1])
        self._end = weight + b"}"
        self._cut_end = b',"inputs_omitted":"cut"' + weight + b"}"

    def line(
        self,
        event_id: str,
        time: datetime,
        request_id: str,
        bucket: float | None,
        latency_us: int,
        rows: int,
        inputs: msgspec.Raw | bytes | None,
        outputs: msgspec.Raw | bytes,
    ) -> bytes:
        """Returns the event as one line of JSON, without the line's end.

        Args:
            event_id: unique.
            time: the event's, with an offset.
            request_id: as the client gave it or the server made it.
            bucket: the unit's place in [0, 1), None where it is hidden.
            latency_us: of the answer.
            rows: of the request.
            inputs: the JSON array of its tensors, None where there are too many bytes of it.
            outputs: the JSON array of the answer's tensors.

        Raises:
            UnicodeEncodeError: an id holds half of a surrogate pair.
        """
        subject = _encode(request_id)
        if inputs is None:
            inputs_name, inputs, end = b"", b"", self._cut_end
        else:
            inputs_name, end = b',"inputs":', self._end
        return b"".join(
            (
                self._before_id,
                _encode(event_id),
                self._after_id,
                _encode(time),
                b',"subject":',
                subject,
                b',"partitionkey":',
                subject,
                self._before_bucket,
                b"" if bucket is None else b',"bucket":' + _encode(bucket),
                self._after_bucket,
                _encode(latency_us),
                b',"rows":',
                _encode(rows),
                inputs_name,
                inputs,
                b',"outputs":',
                outputs,
                end,
            )
        )
