"""Sound files as they come: one reader for all of them, by their content, in blocks.

`audio.read_audio` and ``audiostyle transfer`` read through it. Decoding is libsndfile's; what stands here
is what it leaves open: pipes, headers without a length, files that are cut short, channels that cancel.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..config import AudioConfig
from ..errors import AudioError

MAX_SECONDS = 3600.0
LOUDEST_PEAK = (
    1e3  # +60 dBFS; louder samples come from a damaged file, or are no floats of full scale 1
)
SAMPLE_RATES = (1_000, 768_000)  # Hz, of any recording
MOST_BYTES = 2**33  # of a pipe
READ_FRAMES = 4_096  # what follows the last whole block of a damaged file is lost
UNKNOWN_FRAMES = 2**36 - 1  # as many as a FLAC can state, or more: it states none
OPEN_SIZES = 2**31 - 2**16  # stated by programs that write to a pipe: as large as the field holds
#: Channels cancel where their mean has less than this share of the power that uncorrelated ones leave.
CANCELLING = 0.2
# Sizes as libsndfile found them, in its log: stated, and what the file holds.
_CUT_SIZE = re.compile(
    r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.M
)
_CUT_FRAMES = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


@dataclass(frozen=True)
class Recording:
    """A sound file: its own format, its samples in blocks, and the waveform that models hear.

    Parameters
    ----------
    name : str
        The file's, as the user wrote it.
    sample_rate : int
        In Hz, of the file.
    n_channels, n_samples : int
        Of the file, as decoded: headers are not believed.
    subtype : str
        libsndfile's name of the sample format, such as ``"PCM_24"``.
    waveform : np.ndarray [shape=(n_samples,), dtype=float32]
        Mean of the channels at the front end's sample rate; the loudest channel where they cancel.
    channel : int or None
        Which channel `waveform` is; None if it is the mean of all.
    stated_seconds : float
        What the header promises, where that is more than there is; else 0.
    """

    name: str
    sample_rate: int
    n_channels: int
    n_samples: int
    subtype: str
    waveform: np.ndarray = field(repr=False)
    channel: int | None
    stated_seconds: float
    _file: BinaryIO = field(repr=False)

    @property
    def seconds(self) -> float:
        return self.n_samples / self.sample_rate

    @property
    def cut_short(self) -> str:
        """What is missing at the end, in words; empty where nothing is known to be."""
        if not self.stated_seconds:
            return ""
        if not np.isfinite(self.stated_seconds):
            return f"cut short (truncated or damaged): cannot be read beyond {self.seconds:.1f} s"
        promised = f" of the {self.stated_seconds:.1f} s that its header promises"
        if self.stated_seconds < self.seconds + 0.1:
            promised = ", less than its header promises"
        return f"cut short (truncated): ends after {self.seconds:.1f} s{promised}"

    def blocks(self, n_frames: int) -> Iterator[np.ndarray]:
        """The file from its beginning, as float32 (n_frames, n_channels); the last is shorter."""
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for block in _decode(self._file, self.name).blocks():
            waiting.append(block)
            n_waiting += len(block)
            if n_waiting < n_frames:
                continue
            whole = np.concatenate(waiting)
            n_whole = n_waiting - n_waiting % n_frames
            yield from whole[:n_whole].reshape(-1, n_frames, self.n_channels)
            waiting, n_waiting = [whole[n_whole:]], n_waiting - n_whole
        if n_waiting:
            yield np.concatenate(waiting)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_recording(
    path: str | Path, *, config: AudioConfig | None = None, max_seconds: float = MAX_SECONDS
) -> Recording:
    """Decode a sound file from end to end, and keep it open so that it can be decoded again.

    Parameters
    ----------
    path : str or Path
        A file that libsndfile reads (its name does not matter), or a pipe with the content of one.
    config : AudioConfig
        The front end, of the waveform.
    max_seconds : float
        Longer files are refused.

    Returns
    -------
    Recording
        A context manager, which closes the file.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty, not audio or too long, or holds samples that no recording
        has. The rest is left to `audio.require_sound`.
    """
    file = _opened(Path(path))
    try:
        return _read(file, str(path), config or AudioConfig(), max_seconds)
    except BaseException:
        file.close()
        raise


def count_samples(path: Path) -> int:
    """Samples of each channel that a file holds, found by decoding it."""
    with path.open("rb") as file:
        return sum(len(block) for block in _decode(file, str(path)).blocks())


# Files ------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    """The file, or a repaired copy of it without a name, from which decoding can begin again."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{path}: is a folder, not an audio file")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise AudioError(f"{path}: is a device, not an audio file")
        file = path.open("rb")
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except AudioError:  # a ValueError, too
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{path}: cannot be opened ({reason.lower()})") from error
    if not stat.S_ISREG(mode):
        file = _copied(file)
    if not file.seek(0, os.SEEK_END):
        file.close()
        what = "file" if stat.S_ISREG(mode) else "pipe"
        raise AudioError(f"{path}: the {what} is empty")
    return _repaired(file)


def _copied(file: BinaryIO, *, start: int | None = None, before: bytes = b"") -> BinaryIO:
    """A temporary copy of what follows, or follows `start`, behind `before`; the original is closed."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115, a `Recording` closes it
    copy.write(before)
    with file:
        if start is not None:
            file.seek(start)
        while piece := file.read(2**20):
            if copy.tell() > MOST_BYTES:
                raise AudioError(f"a pipe of over {MOST_BYTES >> 30} GB: write it to a file first")
            copy.write(piece)
    copy.flush()
    return copy


def _repaired(file: BinaryIO) -> BinaryIO:
    """The same file, or a copy in which libsndfile finds the sound.

    Programs that write to a pipe cannot go back to state the length, and leave 0; libsndfile takes that
    for no sound, but ignores lengths that are too large. Damaged copies may begin with zeros. An MP3 that
    does not state its length is decoded only as far as the bit rate of its first frame suggests.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(2**20)
    zeros = len(head) - len(head.lstrip(b"\0"))
    if 0 < zeros < len(head):
        return _repaired(_copied(file, start=zeros))
    first = _id3_size(head)
    if first or head[:1] == b"\xff":
        file.seek(first)
        patch = _patch_of_mp3(file.read(2**13), size - first)
        return _copied(file, start=first + patch[0], before=patch[1]) if patch else file
    patch = _unstated_length(head, size)
    if patch is None:
        return file
    position, length = patch
    return _copied(file, before=head[:position] + length, start=position + len(length))


def _id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag in front of the sound."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum(
        (byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
    )


def _patch_of_mp3(head: bytes, size: int) -> tuple[int, bytes] | None:
    """How many bytes of an MP3 to replace, and by what; None if it states its length or is no MP3.

    One without a length gets a frame that states one, too long: a copy of the first with a Xing header in
    place of its sound. One that is cut short keeps the length that it states in frames, and gets its real
    size: of another, libsndfile's decoder complains on standard error.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # layer III
        return None
    # the next frame begins like the first, but for its bit rate, padding and mode extension
    length = next(
        (n for n in range(24, len(head) - 4) if head[n : n + 2] == head[:2]
         and (head[n + 2] ^ head[2]) & 0x0C == 0 and (head[n + 3] ^ head[3]) & 0xC0 == 0), 0
    )  # fmt: skip
    if not length:
        return None
    if stated := re.search(rb"(?:Xing|Info)\0\0\0(.)", head[:length], re.S):
        flags = stated[1][0]
        position = stated.end() + 4 * (flags & 1)
        is_cut = flags & 2 and int.from_bytes(head[position : position + 4], "big") > size
        return (position + 4, head[:position] + struct.pack(">I", size)) if is_cut else None
    if b"VBRI" in head[:length]:
        return None
    is_mpeg_1, is_mono = head[1] & 0x18 == 0x18, head[3] & 0xC0 == 0xC0
    side = {(True, False): 32, (False, True): 9}.get((is_mpeg_1, is_mono), 17)
    # without a checksum, behind which mpg123 would look for the header
    header = bytes([head[0], head[1] | 1]) + head[2:4]
    frame = header.ljust(4 + side, b"\0") + b"Xing" + struct.pack(">II", 1, 2**31 - 1)
    return (0, frame.ljust(length, b"\0")) if len(frame) <= length else None


def _unstated_length(head: bytes, size: int) -> tuple[int, bytes] | None:
    """Where the length of the samples stands and what to write there, if a header leaves it open."""
    kind = head[:4]
    if kind == b".snd" and head[8:12] == bytes(4):
        return 8, b"\xff" * 4
    if kind not in (b"RIFF", b"RIFX", b"RF64", b"caff"):
        return None
    order = ">" if kind in (b"RIFX", b"caff") else "<"
    position, wide = (8, 12) if kind == b"caff" else (12, 8)
    ds64 = 0
    while position + wide <= len(head):
        name = head[position : position + 4]
        (length,) = struct.unpack_from(order + ("q" if wide == 12 else "I"), head, position + 4)
        begin = position + wide
        if name == b"ds64":
            ds64 = begin
        if name == b"data":
            if kind == b"caff":
                if length > size:  # of a file that is cut short, and that libsndfile would refuse
                    return position + 4, struct.pack(">q", size)
                unknown = length in (-1, 0)
                return (position + 4, struct.pack(">q", size - begin)) if unknown else None
            if kind == b"RF64" and ds64 and head[ds64 + 8 : ds64 + 16] == bytes(8):
                return ds64 + 8, struct.pack("<Q", size - begin)
            if (
                kind != b"RF64"
                and length == 0
                and not _is_chunk(head[begin : begin + 8], size, order)
            ):
                return position + 4, b"\xff" * 4
            return None
        position = begin + max(0, length) + (length & 1 if wide == 8 else 0)
    return None


def _is_chunk(head: bytes, size: int, order: str) -> bool:
    """Whether a chunk follows, or nothing: then a length of 0 is meant."""
    if len(head) < 8:
        return True
    (length,) = struct.unpack_from(order + "I", head, 4)
    return head[:4].isascii() and head[:4].decode("ascii").isprintable() and length < size


# Decoding ---------------------------------------------------------------------------------------


@cache
def _stream_class() -> type:
    import soundfile as sf

    class Stream(sf.SoundFile):
        """Read on to the end, whatever length the header states."""

        def seekable(self) -> bool:
            return False

    return Stream


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Send standard error elsewhere: libsndfile's MP3 decoder prints what it thinks of a file."""
    kept = os.dup(2)
    elsewhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(elsewhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(elsewhere)


@dataclass
class _Decoder:
    """A pass over a file; what it found is known after the last block."""

    file: BinaryIO
    name: str
    stream: object
    log: str  # of libsndfile, on the header
    damaged: bool = False

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks (n_frames, n_channels), float32, whose samples were checked."""
        import soundfile as sf

        n_read = 0
        with self.stream as stream:
            while True:
                try:
                    with _without_remarks():
                        block = stream.read(READ_FRAMES, dtype="float32", always_2d=True)
                except (sf.LibsndfileError, RuntimeError) as error:
                    if not n_read:
                        raise _not_readable(self.name, error) from error
                    self.damaged = True
                    return
                if not len(block):
                    return
                n_read += len(block)
                check_samples(block, self.name)
                yield block


def _not_readable(name: str, error: Exception) -> AudioError:
    reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
    if "regular file" in reason:  # what it says of MP3s in which it finds no frame
        reason = "Format not recognised"
    return AudioError(f"{name}: not readable as audio ({reason})")


def _decode(file: BinaryIO, name: str) -> _Decoder:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        # by its descriptor: by a name, libsndfile takes any .au or .raw for sound
        stream = _opened_by(file.fileno(), name)
    except AudioError as error:
        if "resource fork" not in str(error):
            raise
        # a file called ._ in the working folder was taken for a part of the one without a name
        stream = _opened_by(f"/dev/fd/{file.fileno()}", name)
    return _Decoder(file, name, stream, stream.extra_info)


def _opened_by(handle: int | str, name: str):
    import soundfile as sf

    try:
        with _without_remarks():
            return _stream_class()(handle, closefd=False)
    except (sf.LibsndfileError, RuntimeError) as error:
        raise _not_readable(name, error) from error


def check_samples(samples: np.ndarray, what: str) -> None:
    """Raise `AudioError` if samples are not finite, or larger than any recording's."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{what}: holds samples that are not finite (NaN or infinity)")
    if peak > LOUDEST_PEAK:
        raise AudioError(f"{what}: holds a sample of {peak:.0e}, where full scale is 1")


def loudest_where_cancelling(power: np.ndarray, power_of_mean: float) -> int | None:
    """Index of the channel with the most `power` (n_channels,), if the mean of all has lost it."""
    if power_of_mean * len(power) < CANCELLING * power.mean():
        return int(power.argmax())
    return None


def _read(file: BinaryIO, name: str, config: AudioConfig, max_seconds: float) -> Recording:
    decoder = _decode(file, name)
    stream = decoder.stream
    sample_rate, stated = stream.samplerate, stream.frames
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise AudioError(f"{name}: has a sample rate of {sample_rate} Hz, which no recording has")
    if max_seconds < stated / sample_rate < UNKNOWN_FRAMES / sample_rate:
        raise _too_long(name, stated / sample_rate, max_seconds)
    heard = _Mono(sample_rate, config.sample_rate, stream.channels)
    for block in decoder.blocks():
        heard.add(block, block.mean(axis=1) if stream.channels > 1 else block[:, 0])
        if heard.n_samples > max_seconds * sample_rate:
            raise _too_long(name, heard.n_samples / sample_rate, max_seconds)
    if heard.n_samples == 0:
        raise AudioError(f"{name}: holds no samples")
    waveform = heard.waveform()
    channel = heard.channel()
    if channel is not None:
        waveform = _of_channel(file, name, channel, config)
    return Recording(
        name, sample_rate, stream.channels, heard.n_samples, stream.subtype, waveform, channel,
        _stated_seconds(decoder, stated, heard.n_samples), file,
    )  # fmt: skip


def _too_long(name: str, seconds: float, max_seconds: float) -> AudioError:
    most = f"at most {max_seconds / 60:.0f} are taken"
    return AudioError(f"{name}: lasts {seconds / 60:.0f} minutes or more, {most}")


def _stated_seconds(decoder: _Decoder, stated: int, n_samples: int) -> float:
    """Of a file that ends before its header says so; infinite where it cannot be decoded to its end."""
    rate = decoder.stream.samplerate
    if n_samples < stated < UNKNOWN_FRAMES:
        return stated / rate
    for wanted, found in _CUT_SIZE.findall(decoder.log):
        if int(found) < int(wanted) < OPEN_SIZES:
            return n_samples / rate * int(wanted) / max(1, int(found))
    for found, wanted in _CUT_FRAMES.findall(decoder.log):
        if int(found) < int(wanted):
            return int(wanted) / rate
    return np.inf if decoder.damaged or _lacks_last_page(decoder.file) else 0.0


def _lacks_last_page(file: BinaryIO) -> bool:
    """Whether it is an Ogg stream without the whole of the page that is marked as its last."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    file.seek(max(0, file.seek(0, os.SEEK_END) - 2**17))  # a page has 65 307 bytes at most
    page = file.read().rpartition(b"OggS")[2]
    if len(page) < 23 or not page[1] & 4:
        return True
    sizes = page[23 : 23 + page[22]]  # of its segments
    return len(page) < 23 + page[22] + sum(sizes)


class _Mono:
    """One channel, resampled block by block, and the power of all of them."""

    def __init__(self, sample_rate: int, target_rate: int, n_channels: int) -> None:
        import soxr

        self.n_samples = 0
        self._stream = None
        if sample_rate != target_rate:
            self._stream = soxr.ResampleStream(sample_rate, target_rate, 1, "float32", "HQ")
        self._parts: list[np.ndarray] = []
        self._moments = np.zeros(
            (2, n_channels + 1)
        )  # sums and sums of squares; the last: of `mono`

    def add(self, block: np.ndarray, mono: np.ndarray) -> None:
        """A block (n_frames, n_channels), and what is heard of it, (n_frames,)."""
        self.n_samples += len(block)
        for own, x in ((slice(-1), block), (slice(-1, None), mono[:, None])):
            self._moments[0, own] += x.sum(axis=0)
            self._moments[1, own] += np.einsum("nc,nc->c", x, x)
        self._parts.append(mono if self._stream is None else self._stream.resample_chunk(mono))

    def waveform(self) -> np.ndarray:
        if self._stream is not None:
            self._parts.append(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.ascontiguousarray(np.concatenate(self._parts), dtype=np.float32)

    def power(self) -> np.ndarray:
        """Of each channel and of what was heard, (n_channels + 1,), without their DC offsets."""
        mean, square = self._moments / self.n_samples
        return np.maximum(square - mean**2, 0.0)

    def channel(self) -> int | None:
        """Which is to be heard; None if it is the mean of all."""
        *channels, mono = self.power()
        return loudest_where_cancelling(np.array(channels), mono)


def _of_channel(file: BinaryIO, name: str, channel: int, config: AudioConfig) -> np.ndarray:
    decoder = _decode(file, name)
    heard = _Mono(decoder.stream.samplerate, config.sample_rate, decoder.stream.channels)
    for block in decoder.blocks():
        heard.add(block, np.ascontiguousarray(block[:, channel]))
    return heard.waveform()
