# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, freethreading_compatible=True
"""The scanner, compiled. Twin of `engine/rollout/_scan_py.py`; what it does is documented in `engine.rollout.scan`."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memchr, memcmp

cdef extern from *:
    """
    #if defined(__GLIBC__) || defined(__linux__)
        /* Declared here because the feature macro may come too late for <string.h>. */
        extern void *memrchr(const void *, int, size_t);
        #define engine_memrchr memrchr
    #else
        static const void *engine_memrchr(const void *data, int byte, size_t size) {
            const unsigned char *at = (const unsigned char *)data + size;
            while (size--) { if (*--at == (unsigned char)byte) return at; }
            return 0;
        }
    #endif
    """
    const void *engine_memrchr(const void *data, int byte, size_t size) nogil

ctypedef const unsigned char *Bytes

IMPLEMENTATION = "c"

cdef enum:
    _BLANK = 0
    _SESSION_META = 1
    _RESPONSE_ITEM = 2
    _COMPACTED = 3
    _TURN_CONTEXT = 4
    _EVENT_MSG = 5
    _OTHER = 6
    _BROKEN = 7

BLANK = _BLANK
SESSION_META = _SESSION_META
RESPONSE_ITEM = _RESPONSE_ITEM
COMPACTED = _COMPACTED
TURN_CONTEXT = _TURN_CONTEXT
EVENT_MSG = _EVENT_MSG
OTHER = _OTHER
BROKEN = _BROKEN

cdef enum:
    _REPLACEMENT = 1 << 0
    _COMPACTION = 1 << 1
    _CONTEXT = 1 << 2
    _TURN_STARTED = 1 << 3
    _TURN_COMPLETE = 1 << 4
    _TURN_ABORTED = 1 << 5
    _ROLLED_BACK = 1 << 6
    _USER_EVENT = 1 << 7
    _USAGE = 1 << 8
    _OTHER_EVENT = 1 << 9
    _USER_ITEM = 1 << 10
    _ASSISTANT_ITEM = 1 << 11
    _OTHER_ITEM = 1 << 12
    _META = 1 << 13
    _FOREIGN = 1 << 14
    _EMPTY = 1 << 15
    _DAMAGED = 1 << 16
    _EVENTS = _TURN_STARTED | _TURN_COMPLETE | _TURN_ABORTED | _ROLLED_BACK | _USER_EVENT | _USAGE | _OTHER_EVENT
    _ITEMS = _USER_ITEM | _ASSISTANT_ITEM | _OTHER_ITEM
    _COMPACTIONS = _REPLACEMENT | _COMPACTION
    _ALL_MARKS = (1 << 17) - 1

REPLACEMENT = _REPLACEMENT
COMPACTION = _COMPACTION
CONTEXT = _CONTEXT
TURN_STARTED = _TURN_STARTED
TURN_COMPLETE = _TURN_COMPLETE
TURN_ABORTED = _TURN_ABORTED
ROLLED_BACK = _ROLLED_BACK
USER_EVENT = _USER_EVENT
USAGE = _USAGE
OTHER_EVENT = _OTHER_EVENT
USER_ITEM = _USER_ITEM
ASSISTANT_ITEM = _ASSISTANT_ITEM
OTHER_ITEM = _OTHER_ITEM
META = _META
FOREIGN = _FOREIGN
EMPTY = _EMPTY
DAMAGED = _DAMAGED
EVENTS = _EVENTS
ITEMS = _ITEMS
COMPACTIONS = _COMPACTIONS
ALL_MARKS = _ALL_MARKS

# The marks a line of a kind can have.
cdef int[8] _MARKS_OF
_MARKS_OF[:] = [_EMPTY, _META, _ITEMS, _COMPACTIONS, _CONTEXT, _EVENTS, _FOREIGN, _DAMAGED]


cdef inline bint _is_space(unsigned char c) noexcept nogil:
    return c == b' ' or c == b'\t' or c == b'\r'


cdef inline Bytes _after_space(Bytes at, Bytes end) noexcept nogil:
    while at < end and _is_space(at[0]):
        at += 1
    return at


cdef inline Bytes _closing_quote(Bytes at, Bytes end) noexcept nogil:
    """The quote that ends the string whose text begins at `at`; NULL if there is none."""
    cdef Bytes quote
    cdef Bytes back
    cdef Bytes from_ = at
    while from_ < end:
        quote = <Bytes>memchr(from_, b'"', end - from_)
        if quote == NULL:
            return NULL
        back = quote
        while back > at and (back - 1)[0] == b'\\':
            back -= 1
        if ((quote - back) & 1) == 0:
            return quote
        from_ = quote + 1
    return NULL


cdef int _hex(unsigned char c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    if 97 <= c <= 102:
        return c - 87
    if 65 <= c <= 70:
        return c - 55
    return -1


cdef bint _is_text(Bytes at, Bytes end, const char *name, Py_ssize_t size) noexcept nogil:
    """Whether the JSON string between `at` and `end` says `name`; escapes count as what they stand for."""
    cdef Py_ssize_t i = 0
    cdef int code, digit, k
    cdef unsigned char c
    if end - at == size:
        return memcmp(at, name, size) == 0
    while at < end:
        if i == size:
            return False
        c = at[0]
        at += 1
        if c == b'\\':
            if at >= end:
                return False
            c = at[0]
            at += 1
            if c == b'u':
                if end - at < 4:
                    return False
                code = 0
                for k in range(4):
                    digit = _hex(at[k])
                    if digit < 0:
                        return False
                    code = code * 16 + digit
                at += 4
                if code >= 128:
                    return False
                c = <unsigned char>code
            else:
                # No name holds any of the characters that the other escapes stand for.
                return False
        if c != <unsigned char>name[i]:
            return False
        i += 1
    return i == size


cdef int _named(Bytes at, Bytes end) noexcept nogil:
    if _is_text(at, end, b"event_msg", 9):
        return _EVENT_MSG
    if _is_text(at, end, b"response_item", 13):
        return _RESPONSE_ITEM
    if _is_text(at, end, b"turn_context", 12):
        return _TURN_CONTEXT
    if _is_text(at, end, b"compacted", 9):
        return _COMPACTED
    if _is_text(at, end, b"session_meta", 12):
        return _SESSION_META
    return _OTHER


cdef Bytes _after_value(Bytes at, Bytes end) noexcept nogil:
    """Behind the value at `at`, or `end` if it has no end."""
    cdef Py_ssize_t depth = 0
    cdef Bytes quote
    cdef unsigned char c
    if at >= end:
        return end
    c = at[0]
    if c == b'"':
        quote = _closing_quote(at + 1, end)
        return end if quote == NULL else quote + 1
    if c != b'{' and c != b'[':
        while at < end and at[0] != b',' and at[0] != b'}':
            at += 1
        return at
    while at < end:
        c = at[0]
        if c == b'"':
            quote = _closing_quote(at + 1, end)
            if quote == NULL:
                return end
            at = quote
        elif c == b'{' or c == b'[':
            depth += 1
        elif c == b'}' or c == b']':
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return end


cdef Bytes _member(Bytes at, Bytes end, const char *name, Py_ssize_t size) noexcept nogil:
    """Where the value of the first member `name` begins in the object that begins at `at`; NULL if it has none."""
    cdef Bytes quote
    cdef bint found
    if at >= end or at[0] != b'{':
        return NULL
    at += 1
    while True:
        at = _after_space(at, end)
        if at >= end or at[0] != b'"':
            return NULL
        quote = _closing_quote(at + 1, end)
        if quote == NULL:
            return NULL
        found = _is_text(at + 1, quote, name, size)
        at = _after_space(quote + 1, end)
        if at >= end or at[0] != b':':
            return NULL
        at = _after_space(at + 1, end)
        if found:
            return at if at < end else NULL
        at = _after_space(_after_value(at, end), end)
        if at >= end or at[0] != b',':
            return NULL
        at += 1


cdef inline bint _has_text(Bytes at, Bytes end, const char *name, Py_ssize_t size) noexcept nogil:
    """Whether the value at `at`, maybe NULL, is the string `name`."""
    cdef Bytes quote
    if at == NULL or at[0] != b'"':
        return False
    quote = _closing_quote(at + 1, end)
    return quote != NULL and _is_text(at + 1, quote, name, size)


cdef int _kind(Bytes at, Bytes end) noexcept nogil:
    cdef Bytes last = end
    cdef Bytes quote
    while last > at and _is_space((last - 1)[0]):
        last -= 1
    at = _after_space(at, last)
    if at == last or at[0] != b'{':
        while at < last and (_is_space(at[0]) or at[0] == 0x0b or at[0] == 0x0c):
            at += 1
        return _BLANK if at == last else _BROKEN
    if (last - 1)[0] != b'}':
        return _BROKEN
    at = _member(at, last, b"type", 4)
    if at == NULL or at[0] != b'"':
        return _BROKEN
    quote = _closing_quote(at + 1, last)
    return _BROKEN if quote == NULL else _named(at + 1, quote)


cdef int _event(Bytes payload, Bytes end) noexcept nogil:
    cdef Bytes at = _member(payload, end, b"type", 4)
    cdef Bytes quote
    if at == NULL or at[0] != b'"':
        return _OTHER_EVENT
    quote = _closing_quote(at + 1, end)
    if quote == NULL:
        return _OTHER_EVENT
    at += 1
    if _is_text(at, quote, b"token_count", 11):
        at = _member(payload, end, b"info", 4)
        return _OTHER_EVENT if at == NULL or at[0] != b'{' else _USAGE
    if _is_text(at, quote, b"user_message", 12):
        return _USER_EVENT
    if _is_text(at, quote, b"task_started", 12) or _is_text(at, quote, b"turn_started", 12):
        return _TURN_STARTED
    if _is_text(at, quote, b"task_complete", 13) or _is_text(at, quote, b"turn_complete", 13):
        return _TURN_COMPLETE
    if _is_text(at, quote, b"turn_aborted", 12):
        return _TURN_ABORTED
    if _is_text(at, quote, b"thread_rolled_back", 18):
        return _ROLLED_BACK
    return _OTHER_EVENT


cdef int _item(Bytes payload, Bytes end) noexcept nogil:
    cdef Bytes role
    if not _has_text(_member(payload, end, b"type", 4), end, b"message", 7):
        return _OTHER_ITEM
    role = _member(payload, end, b"role", 4)
    if _has_text(role, end, b"user", 4):
        return _USER_ITEM
    return _ASSISTANT_ITEM if _has_text(role, end, b"assistant", 9) else _OTHER_ITEM


cdef int _mark(Bytes at, Bytes end, int wanted) noexcept nogil:
    """The mark of a line, or 0 if it is none of `wanted`."""
    cdef int kind = _kind(at, end)
    cdef int possible = _MARKS_OF[kind]
    cdef int mark = possible
    cdef Bytes payload
    if possible & wanted == 0:
        return 0
    if possible & (possible - 1):  # more than one
        at = _after_space(at, end)
        payload = _member(at, end, b"payload", 7)
        if kind == _RESPONSE_ITEM:
            mark = _OTHER_ITEM if payload == NULL else _item(payload, end)
        elif kind == _EVENT_MSG:
            mark = _OTHER_EVENT if payload == NULL else _event(payload, end)
        else:
            mark = _COMPACTION
            if payload != NULL:
                at = _member(payload, end, b"replacement_history", 19)
                if at != NULL and at[0] == b'[':
                    mark = _REPLACEMENT
    return mark & wanted


cdef class Scan:
    """The lines of one rollout held in memory. `data` must not change (an mmap: not be closed) while this lives."""

    cdef Py_buffer _buffer
    cdef bint _held
    cdef Bytes _data
    cdef Py_ssize_t _size

    def __cinit__(self, data):
        self._held = False
        try:
            PyObject_GetBuffer(data, &self._buffer, PyBUF_SIMPLE)
        except (BufferError, TypeError):
            PyObject_GetBuffer(bytes(memoryview(data)), &self._buffer, PyBUF_SIMPLE)
        self._held = True
        self._data = <Bytes>self._buffer.buf
        self._size = self._buffer.len

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._buffer)

    def forward(self, Py_ssize_t start=0, end=None):
        """`(start, end, kind)` of each line from offset `start` on, which must be the start of a line, up to `end`."""
        return self._lines(start, end, 0, False)

    def backward(self, end=None, Py_ssize_t start=0):
        """`(start, end, kind)` of each line before offset `end` (default: all), last line first, down to `start`."""
        return self._lines(start, end, 0, True)

    def marks(self, Py_ssize_t start=0, end=None, int wanted=_ALL_MARKS):
        """`(start, end, mark)` of each line between two offsets whose mark is among `wanted`, first line first."""
        return self._lines(start, end, wanted & _ALL_MARKS, False, True)

    def marks_backward(self, end=None, Py_ssize_t start=0, int wanted=_ALL_MARKS):
        """As `marks`, last line first."""
        return self._lines(start, end, wanted & _ALL_MARKS, True, True)

    def count(self, int kind, Py_ssize_t start=0, end=None):
        """How many lines between two offsets are of `kind`."""
        cdef _Lines lines = self._lines(start, end, 0, False)
        cdef Bytes data = self._data
        cdef Py_ssize_t found = 0
        cdef Py_ssize_t first, last
        with nogil:
            while lines.next_line(data, &first, &last):
                if _kind(data + first, data + last) == kind:
                    found += 1
        return found

    cdef _Lines _lines(self, Py_ssize_t start, end, int wanted, bint backward, bint marks=False):
        cdef _Lines lines = _Lines.__new__(_Lines)
        lines.scan = self
        lines.low = max(0, start)
        lines.high = self._size if end is None else max(0, min(end, self._size))
        lines.wanted = wanted
        lines.backward = backward
        lines.marks = marks
        lines.more = lines.low < lines.high
        if lines.more and backward and self._data[lines.high - 1] == b'\n':
            lines.high -= 1
        return lines

    def turns(self, Py_ssize_t start=0, end=None):
        """`(start, end)` of each turn between two offsets: from the line that starts it to that of the next one."""
        cdef Py_ssize_t last = self._size if end is None else max(0, min(end, self._size))
        return _turns(self.marks(start, end, _TURN_STARTED | _USER_EVENT | _USER_ITEM | _ASSISTANT_ITEM), last)


def _turns(marks, Py_ssize_t last):
    cdef Py_ssize_t at, begun = -1, begins, asked = -1  # `asked`: the first user item that is in no turn yet
    cdef bint told = False  # whether lines tell where turns start
    cdef int mark
    for at, _, mark in marks:
        begins = -1
        if mark == _TURN_STARTED:
            told = True
            begins = at
        elif told:
            continue
        elif mark == _USER_ITEM:
            if asked < 0:
                asked = at
        elif mark == _USER_EVENT:
            begins = at if asked < 0 else asked
        else:
            begins = asked
        if begins >= 0:
            asked = -1
            if begun >= 0:
                yield begun, begins
            begun = begins
    if begun >= 0:
        yield begun, last


cdef class _Lines:
    """Where an iteration stands: the lines between `low` and `high` are still to come."""

    cdef Scan scan
    cdef Py_ssize_t low, high
    cdef int wanted
    cdef bint backward, marks, more

    def __iter__(self):
        return self

    def __next__(self):
        cdef Bytes data = self.scan._data
        cdef Py_ssize_t start, end
        cdef int found
        while self.next_line(data, &start, &end):
            if not self.marks:
                return start, end, _kind(data + start, data + end)
            found = _mark(data + start, data + end, self.wanted)
            if found:
                return start, end, found
        raise StopIteration

    cdef bint next_line(self, Bytes data, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil:
        """The next line without its end, its CR and its byte order mark; false if there is none."""
        cdef Bytes newline
        cdef Py_ssize_t start, stop
        if not self.more:
            return False
        if self.backward:
            newline = <Bytes>engine_memrchr(data + self.low, b'\n', self.high - self.low)
            start = self.low if newline == NULL else newline - data + 1
            stop = self.high
            self.high = start - 1
            self.more = start > self.low
        else:
            start = self.low
            newline = <Bytes>memchr(data + start, b'\n', self.high - start)
            stop = self.high if newline == NULL else newline - data
            self.low = stop + 1
            self.more = self.low < self.high
        if stop > start and data[stop - 1] == b'\r':
            stop -= 1
        if stop - start >= 3 and memcmp(data + start, b"\xef\xbb\xbf", 3) == 0:
            start += 3
        first[0] = start
        last[0] = stop
        return True
