"""A SoundFont whose instruments symusic plays in tune. Used by ``bands_render``.

symusic 0.5.9 takes a zone's pitch from the sample's header and ignores the zone's own generators
overridingRootKey, coarseTune and fineTune. TimGM6mb tunes most of its instruments by these: played
as it is, the piano sounds 13 to 23 semitones off, by another interval in every key zone, and "the
same notes on another instrument" are not the same notes. `tuned` writes what each zone says into a
sample header of its own over the same sample data (SoundFont 2.04 specification, sections 7 and 8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from . import paths

COARSE_TUNE, FINE_TUNE, SAMPLE_ID, OVERRIDING_ROOT_KEY = 51, 52, 53, 58
SAMPLE_HEADER = struct.Struct("<20sIIIIIBbHH")
ROOT_KEY, CORRECTION = 6, 7  # fields of a sample header: MIDI note and cents
NO_ROOT_KEY = 0xFFFF


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of the RIFF chunks in ``data[start:end]``."""
    while start < end:
        size = struct.unpack_from("<I", data, start + 4)[0]
        yield data[start : start + 4], start, size
        start += 8 + size + (size & 1)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _signed(amount: int) -> int:
    return amount - 65_536 if amount > 32_767 else amount


def _tuned_header(header: tuple, zone: dict[int, int]) -> tuple:
    """The sample header with the zone's root key and tuning: key - root + cents / 100 sounds."""
    root = zone.get(OVERRIDING_ROOT_KEY, NO_ROOT_KEY)
    root = root if root <= 127 else header[ROOT_KEY]
    cents = header[CORRECTION]
    cents += 100 * _signed(zone.get(COARSE_TUNE, 0)) + _signed(zone.get(FINE_TUNE, 0))
    semitones = round(cents / 100)
    fields = list(header)
    fields[ROOT_KEY], fields[CORRECTION] = root - semitones, cents - 100 * semitones
    return tuple(fields)


def tuned(data: bytes) -> bytes:
    """SoundFont `data` with every zone's tuning moved into a sample header of its own."""
    lists = [(s, n) for name, s, n in _chunks(data, 12, len(data)) if name == b"LIST"]
    start, size = next((s, n) for s, n in lists if data[s + 8 : s + 12] == b"pdta")
    parts = {
        name: data[s + 8 : s + 8 + n] for name, s, n in _chunks(data, start + 12, start + 8 + size)
    }
    instruments = [first for _, first in struct.iter_unpack("<20sH", parts[b"inst"])]
    bags = [first for first, _ in struct.iter_unpack("<HH", parts[b"ibag"])]
    generators = [list(g) for g in struct.iter_unpack("<HH", parts[b"igen"])]
    *headers, terminal = SAMPLE_HEADER.iter_unpack(parts[b"shdr"])
    index_of: dict[tuple, int] = {}
    for first, last in pairwise(instruments):
        common: dict[int, int] = {}  # a first zone without a sample holds for all zones
        for bag in range(first, last):
            rows = generators[bags[bag] : bags[bag + 1]]
            zone = common | dict(rows)
            if SAMPLE_ID not in zone:
                common = zone if bag == first else common
                continue
            header = _tuned_header(headers[zone[SAMPLE_ID]], zone)
            if header not in index_of:
                index_of[header] = len(headers)
                headers.append(header)
            values = {SAMPLE_ID: index_of[header], OVERRIDING_ROOT_KEY: header[ROOT_KEY]}
            values |= {COARSE_TUNE: 0, FINE_TUNE: 0}
            for row in rows:
                row[1] = values.get(row[0], row[1])
    parts[b"igen"] = b"".join(struct.pack("<HH", *g) for g in generators)
    parts[b"shdr"] = b"".join(SAMPLE_HEADER.pack(*h) for h in (*headers, terminal))
    body = b"pdta" + b"".join(_chunk(name, part) for name, part in parts.items())
    return _chunk(b"RIFF", b"sfbk" + data[12:start] + _chunk(b"LIST", body))


@cache
def path() -> Path:
    """The tuned copy of pretty_midi's General MIDI SoundFont; written on first use."""
    import pretty_midi

    source = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
    target = paths.data() / "bands" / "TimGM6mb-tuned.sf2"
    if not target.is_file():
        with paths.written_beside(target) as temporary:
            temporary.write_bytes(tuned(source.read_bytes()))
    return target
