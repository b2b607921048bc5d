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


cdef int _kind(Bytes at, Bytes end) noexcept nogil:
    cdef Bytes last = end
    cdef Bytes quote
    cdef bint is_type
    while last > at and _is_space((last - 1)[0]):
        last -= 1
    at = _after_space(at, last)
    if at == last or at[0] != b'{':
        while at < last and (_is_space(at[0]) or at[0] == 0x0b or at[0] == 0x0c):
            at += 1
        return _BLANK if at == last else _BROKEN
    if (last - 1)[0] != b'}':
        return _BROKEN
    end = last
    at += 1
    while True:
        at = _after_space(at, end)
        if at >= end or at[0] != b'"':
            return _BROKEN
        quote = _closing_quote(at + 1, end)
        if quote == NULL:
            return _BROKEN
        is_type = _is_text(at + 1, quote, b"type", 4)
        at = _after_space(quote + 1, end)
        if at >= end or at[0] != b':':
            return _BROKEN
        at = _after_space(at + 1, end)
        if is_type:
            if at >= end or at[0] != b'"':
                return _BROKEN
            quote = _closing_quote(at + 1, end)
            return _BROKEN if quote == NULL else _named(at + 1, quote)
        at = _after_space(_after_value(at, end), end)
        if at >= end or at[0] != b',':
            return _BROKEN
        at += 1


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

    cdef Py_ssize_t _first(self) noexcept nogil:
        return 3 if self._size >= 3 and memcmp(self._data, b"\xef\xbb\xbf", 3) == 0 else 0

    def forward(self, Py_ssize_t start=0):
        """`(start, end, kind)` of each line from offset `start` on, which must be the start of a line."""
        cdef _Forward lines = _Forward.__new__(_Forward)
        lines.scan = self
        lines.position = self._first() if start <= 0 else start
        return lines

    def backward(self, end=None):
        """`(start, end, kind)` of each line before offset `end` (default: all), last line first."""
        cdef Py_ssize_t stop = self._size if end is None else max(0, min(end, self._size))
        cdef _Backward lines = _Backward.__new__(_Backward)
        lines.scan = self
        lines.first = self._first()
        if stop <= lines.first:
            lines.stop = -1
        else:
            lines.stop = stop - 1 if self._data[stop - 1] == b'\n' else stop
        return lines

    def count(self, int kind):
        """How many lines are of `kind`."""
        cdef Py_ssize_t found = 0
        cdef Bytes at = self._data + self._first()
        cdef Bytes stop = self._data + self._size
        cdef Bytes newline
        with nogil:
            while at < stop:
                newline = <Bytes>memchr(at, b'\n', stop - at)
                if newline == NULL:
                    newline = stop
                if _kind(at, newline) == kind:
                    found += 1
                at = newline + 1
        return found


cdef class _Forward:
    cdef Scan scan
    cdef Py_ssize_t position

    def __iter__(self):
        return self

    def __next__(self):
        cdef Scan scan = self.scan
        cdef Py_ssize_t start = self.position
        cdef Py_ssize_t stop, end
        cdef Bytes newline
        if start >= scan._size:
            raise StopIteration
        newline = <Bytes>memchr(scan._data + start, b'\n', scan._size - start)
        stop = scan._size if newline == NULL else newline - scan._data
        end = stop - 1 if stop > start and scan._data[stop - 1] == b'\r' else stop
        self.position = stop + 1
        return start, end, _kind(scan._data + start, scan._data + end)


cdef class _Backward:
    cdef Scan scan
    cdef Py_ssize_t first
    cdef Py_ssize_t stop

    def __iter__(self):
        return self

    def __next__(self):
        cdef Scan scan = self.scan
        cdef Py_ssize_t start, end
        cdef Bytes newline
        if self.stop < 0:
            raise StopIteration
        newline = <Bytes>engine_memrchr(scan._data + self.first, b'\n', self.stop - self.first)
        start = self.first if newline == NULL else newline - scan._data + 1
        end = self.stop - 1 if self.stop > start and scan._data[self.stop - 1] == b'\r' else self.stop
        self.stop = -1 if start <= self.first else start - 1
        return start, end, _kind(scan._data + start, scan._data + end)
