"""Read and write SoundFont files, so that symusic plays their instruments in tune.

symusic 0.5.9 takes a zone's pitch from the sample's header and ignores the zone's own generators
overridingRootKey, coarseTune and fineTune. TimGM6mb tunes most of its instruments by these: played
as it is, the piano sounds 13 to 23 semitones off, by another interval in every key zone. `tuned`
therefore writes what each zone says into a sample header of its own over the same sample data.
`extract_preset` does the same for one preset and leaves out all others, because a worker that plays
one program then loads a small file. SoundFonts with Ogg Vorbis samples (.sf3) stay compressed: symusic
decodes them. Used by `synth` and `instruments`.

References
----------
SoundFont Technical Specification 2.04, Creative Technology, 2006: sections 7 (file) and 8 (generators).
"""

from __future__ import annotations

import ast
import hashlib
import struct
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import count, pairwise
from pathlib import Path
from types import ModuleType

from .. import paths

COARSE_TUNE, FINE_TUNE, SAMPLE_ID, OVERRIDING_ROOT_KEY = 51, 52, 53, 58
INSTRUMENT, KEY_RANGE, VELOCITY_RANGE, ATTENUATION, SCALE_TUNING = 41, 43, 44, 48, 56
# where a zone's sample and loop begin and end, and its loop mode
LOOPING = (0, 1, 2, 3, 4, 12, 45, 50, 54)
PRESET_HEADER = struct.Struct("<20sHHHIII")
SAMPLE_HEADER = struct.Struct("<20sIIIIIBbHH")
START, END, LOOP_START, LOOP_END = 1, 2, 3, 4  # fields of a sample header
ROOT_KEY, CORRECTION = 6, 7  # MIDI note and cents
NO_ROOT_KEY = 0xFFFF
#: Generators whose default is not 0; a preset's amounts are added to these.
DEFAULTS = {8: 13_500, SCALE_TUNING: 100} | dict.fromkeys(
    (21, 23, 25, 26, 27, 28, 30, 33, 34, 35, 36, 38), -12_000
)
GUARD = 8  # samples that have to follow a loop, by the specification; symusic reads them
DRUM_BANK = 128


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of the RIFF chunks in ``data[start:end]``."""
    while start < end:
        size = struct.unpack_from("<I", data, start + 4)[0]
        yield data[start : start + 4], start, size
        start += 8 + size
        start += size & 1 and data[start : start + 1] == b"\0"  # not every writer pads


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _list(data: bytes, kind: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Where the list of a kind starts, and its chunks."""
    lists = [(s, n) for name, s, n in _chunks(data, 12, len(data)) if name == b"LIST"]
    start, size = next((s, n) for s, n in lists if data[s + 8 : s + 12] == kind)
    inner = _chunks(data, start + 12, start + 8 + size)
    return start, {name: data[s + 8 : s + 8 + n] for name, s, n in inner}


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
    """Move every zone's tuning into a sample header of its own.

    Parameters
    ----------
    data : bytes
        A SoundFont (.sf2 or .sf3).

    Returns
    -------
    bytes
        The SoundFont with more sample headers, over the same samples.
    """
    start, parts = _list(data, b"pdta")
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


def _zones(bags: bytes, generators: bytes, first: int, last: int, target: int):
    """(generators, index) of the zones between two bags that name a target."""
    starts = [g for g, _ in struct.iter_unpack("<HH", bags)]
    rows = list(struct.iter_unpack("<HH", generators))
    common: dict[int, int] = {}
    for bag in range(first, last):
        zone = common | dict(rows[starts[bag] : starts[bag + 1]])
        if target in zone:
            yield zone, zone.pop(target)
        elif bag == first:
            common = zone


def _overlap(a: int, b: int) -> tuple[int, int]:
    """Lowest and highest value that lie in two ranges, each packed in one amount."""
    return max(a & 255, b & 255), min(a >> 8, b >> 8)


def _preset_zones(parts: dict[bytes, bytes], first: int, last: int):
    """(key range, velocity range, generators, sample) of every zone that a preset plays."""
    instruments = [bag for _, bag in struct.iter_unpack("<20sH", parts[b"inst"])]
    for above, index in _zones(parts[b"pbag"], parts[b"pgen"], first, last, INSTRUMENT):
        span = instruments[index], instruments[index + 1]
        for zone, sample in _zones(parts[b"ibag"], parts[b"igen"], *span, SAMPLE_ID):
            keys, velocities = (
                _overlap(zone.get(r, 127 << 8), above.get(r, 127 << 8))
                for r in (KEY_RANGE, VELOCITY_RANGE)
            )
            if keys[0] > keys[1] or velocities[0] > velocities[1]:
                continue
            added = {
                g: _signed(zone.get(g, DEFAULTS.get(g, 0))) + _signed(a) for g, a in above.items()
            }
            zone |= {g: max(-32_768, min(a, 32_767)) & 0xFFFF for g, a in added.items()}
            yield keys, velocities, zone, sample


def _per_key(keys: tuple[int, int], zone: dict[int, int], untuned: tuple):
    """(key range, tuned header) of a zone; one a key where keys are not a semitone apart.

    symusic plays every zone at a semitone a key, also drums that sound the same on all keys.
    """
    scale = zone.get(SCALE_TUNING, 100)
    header = _tuned_header(untuned, zone)
    if scale == 100:
        yield keys, header
        return
    root = zone.get(OVERRIDING_ROOT_KEY, NO_ROOT_KEY)
    root = root if root <= 127 else untuned[ROOT_KEY]
    for key in range(keys[0], keys[1] + 1):
        cents = (scale - 100) * (key - root)
        yield (key, key), _tuned_header(header, {FINE_TUNE: cents & 0xFFFF})


def _sample(data: bytes, header: tuple, compressed: bool) -> tuple[bytes, int, int]:
    """Bytes of a sample and its loop, counted from its first sample.

    A loop that ends too near to the end is moved forward as a whole: symusic would read past it.
    """
    start, end = header[START], header[END]
    if compressed:
        body, loop = data[start:end], (header[LOOP_START], header[LOOP_END])
        n_samples = struct.unpack_from("<q", body, body.rindex(b"OggS") + 6)[0]
    else:
        body = data[2 * start : 2 * end]
        loop = header[LOOP_START] - start, header[LOOP_END] - start
        n_samples = end - start
    shift = min(max(0, loop[1] + GUARD - n_samples), max(0, loop[0]))
    return body, loop[0] - shift, loop[1] - shift


class _Samples:
    """Sample data and headers of a SoundFont while it is written."""

    def __init__(self, data: bytes, compressed: bool):
        self.data, self.compressed = data, compressed
        self.body, self.headers = bytearray(), []
        self.places: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self.users: dict[tuple[int, int], list[tuple]] = {}

    def add(self, sample: int, source: tuple, keys, header: tuple, zone: dict[int, int]):
        """Index of a header over a copy of the sample, and the attenuation to play it with.

        symusic remembers tones by key and where their sample starts. Zones that play one sample on
        the same key in another tuning need copies of it, or the first note played decides; layers
        that differ in attenuation only are played as the first of them.
        """
        sound = header[ROOT_KEY], header[CORRECTION], *(zone.get(g, 0) for g in LOOPING)
        for copy in count():
            users = self.users.setdefault((sample, copy), [])
            others = {u[2:] for u in users if u[0] <= keys[1] and keys[0] <= u[1]}
            if not others or (len(others) == 1 and next(iter(others))[0] == sound):
                break
        attenuation = next(iter(others))[1] if others else zone.get(ATTENUATION, 0)
        users.append((*keys, sound, attenuation))
        if (sample, copy) not in self.places:
            self.places[sample, copy] = self._place(source)
        fields = list(header)
        fields[START : LOOP_END + 1] = self.places[sample, copy]
        fields[-2:] = 0, 0x11 if self.compressed else 1  # mono: what is linked may not be here
        self.headers.append(tuple(fields))
        return len(self.headers) - 1, attenuation

    def _place(self, source: tuple) -> tuple[int, int, int, int]:
        body, *loop = _sample(self.data, source, self.compressed)
        if self.compressed:
            start = len(self.body)
            self.body += body
            return start, start + len(body), *loop
        start = len(self.body) // 2
        self.body += body + bytes(92)  # 46 zeros after each sample, by the specification
        return start, start + len(body) // 2, start + loop[0], start + loop[1]


def extract_preset(data: bytes, bank: int, program: int) -> bytes | None:
    """One preset of a SoundFont as a SoundFont of its own, in tune as in `tuned`.

    Parameters
    ----------
    data : bytes
        A SoundFont with 16-bit (.sf2) or Ogg Vorbis samples (.sf3).
    bank, program : int
        Bank 0 and a General MIDI program, or `DRUM_BANK` and a kit.

    Returns
    -------
    bytes or None
        None where the SoundFont has no such preset or the preset no zone.

    Raises
    ------
    ValueError
        If `data` is no SoundFont or only the beginning of one.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise ValueError("not a SoundFont")
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise ValueError("a SoundFont that is cut short")
    parts, about = _list(data, b"pdta")[1], _list(data, b"INFO")[1]
    compressed = about[b"ifil"][0] == 3
    presets = list(PRESET_HEADER.iter_unpack(parts[b"phdr"]))
    found = [(a, b[3]) for a, b in pairwise(presets) if a[1:3] == (program, bank)]
    if not found:
        return None
    (name, *_), first, last = found[0][0], found[0][0][3], found[0][1]
    headers = list(SAMPLE_HEADER.iter_unpack(parts[b"shdr"]))
    samples = _Samples(_list(data, b"sdta")[1][b"smpl"], compressed)
    generators: list[tuple[int, int]] = []
    bags = []
    tuning = {COARSE_TUNE, FINE_TUNE, SCALE_TUNING, OVERRIDING_ROOT_KEY}
    written = tuning | {KEY_RANGE, VELOCITY_RANGE, ATTENUATION}
    for keys, velocities, zone, sample in _preset_zones(parts, first, last):
        rest = [(g, a) for g, a in zone.items() if g not in written]
        for span, header in _per_key(keys, zone, headers[sample]):
            index, attenuation = samples.add(sample, headers[sample], span, header, zone)
            bags.append(len(generators))
            generators += [(KEY_RANGE, span[0] | span[1] << 8)]
            generators += [(VELOCITY_RANGE, velocities[0] | velocities[1] << 8)]
            generators += [*rest, (ATTENUATION, attenuation), (SAMPLE_ID, index)]
    if not bags:
        return None
    return _written(about, samples, bags, generators, (name, program, bank))


def _written(about: dict, samples: _Samples, bags: list, generators: list, preset: tuple) -> bytes:
    """A SoundFont of one preset with one instrument; every list ends with a terminal record."""
    pair, end = struct.Struct("<HH"), bytes(20)
    parts = {
        b"phdr": PRESET_HEADER.pack(*preset, 0, 0, 0, 0)
        + PRESET_HEADER.pack(end, 0, 0, 1, 0, 0, 0),
        b"pbag": pair.pack(0, 0) + pair.pack(1, 0),
        b"pmod": bytes(10),
        b"pgen": pair.pack(INSTRUMENT, 0) + pair.pack(0, 0),
        b"inst": struct.pack("<20sH", preset[0], 0) + struct.pack("<20sH", end, len(bags)),
        b"ibag": b"".join(pair.pack(b, 0) for b in (*bags, len(generators))),
        b"imod": bytes(10),
        b"igen": b"".join(pair.pack(*g) for g in (*generators, (0, 0))),
        b"shdr": b"".join(SAMPLE_HEADER.pack(*h) for h in samples.headers)
        + SAMPLE_HEADER.pack(end, *[0] * 9),
    }
    body = bytes(samples.body) + b"\0" * (len(samples.body) & 1)  # symusic expects no padding
    lists = ((b"INFO", about), (b"sdta", {b"smpl": body}), (b"pdta", parts))
    chunks = (
        _chunk(b"LIST", kind + b"".join(_chunk(name, part) for name, part in inner.items()))
        for kind, inner in lists
    )
    return _chunk(b"RIFF", b"sfbk" + b"".join(chunks))


def file_name(program: int, is_drum: bool) -> str:
    """Name of an extracted preset in its folder."""
    return f"{'kit' if is_drum else 'program'}-{program:03d}.sf"


def instrument(folder: Path | None, program: int, is_drum: bool) -> Path:
    """The SoundFont that plays a program: its file in a folder of presets if it is there, else `path`."""
    file = folder / file_name(program, is_drum) if folder else None
    return file if file and file.is_file() else path()


def digest(data: bytes, *modules: ModuleType) -> str:
    """Hash for the name of a file that is made of a SoundFont, so that it is made anew when it has to be.

    Parameters
    ----------
    data : bytes
        The SoundFont.
    *modules : ModuleType
        Whose code makes the file. Comments and docstrings do not count.

    Returns
    -------
    str
        Twelve hexadecimal digits. Another version of symusic gives others, too.
    """
    total = hashlib.sha256(data)
    total.update(version("symusic").encode())
    for module in modules:
        tree = ast.parse(Path(module.__file__).read_bytes())
        for node in ast.walk(tree):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if documented and ast.get_docstring(node) is not None:
                del node.body[0]
        total.update(ast.dump(tree).encode())
    return total.hexdigest()[:12]


@cache
def path() -> Path:
    """The tuned copy of pretty_midi's General MIDI SoundFont; written on first use."""
    import pretty_midi

    data = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2").read_bytes()
    name = f"TimGM6mb-tuned-{digest(data, sys.modules[__name__])}.sf2"
    target = paths.data() / "bands" / name
    if not target.is_file():
        with paths.written_beside(target) as temporary:
            temporary.write_bytes(tuned(data))
    return target
