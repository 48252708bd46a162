"""Sound files as they come: read to their real end, in blocks, whatever their headers and names say."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostyle_lib.errors import AudioError, AudioWarning
from audiostyle_lib.signal import audio, recording

RATE = 16_000
KINDS = {  # format of a file by a name of ours
    "wav": ("WAV", "PCM_16"), "rifx": ("WAV", "PCM_16"), "rf64": ("RF64", "PCM_24"),
    "w64": ("W64", "PCM_16"), "aiff": ("AIFF", "PCM_24"), "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
LOSSY = ("ogg", "opus", "mp3")


def noise(n_samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, channels)).astype(np.float32)
    return x[:, 0] if channels == 1 else x


def made(path: Path, kind: str, x: np.ndarray, rate: int = RATE) -> Path:
    container, subtype = KINDS[kind]
    endian = "BIG" if kind == "rifx" else "FILE"
    with sf.SoundFile(
        path, "w", rate, x.shape[1] if x.ndim == 2 else 1, subtype, endian, container
    ) as file:
        file.write(x)
    return path


def opened(path: Path) -> tuple[np.ndarray, list[str]]:
    """Samples, and what is missing behind them."""
    with recording.open_recording(path) as found:
        blocks = list(found.blocks(1000))
        assert all(block.shape == (1000, found.n_channels) for block in blocks[:-1])
        samples = np.concatenate(blocks)
        assert samples.shape == (found.n_samples, found.n_channels)
        return samples, [f"{path}: {found.cut_short}"] if found.cut_short else []


def test_readers_warn_of_a_cut_file_once_and_not_where_they_refuse_it(tmp_path):
    sf.write(tmp_path / "x.flac", noise(60_000), 22_050)
    for share in (0.8, 0.01):
        (tmp_path / "cut.flac").write_bytes(
            (tmp_path / "x.flac").read_bytes()[: int(120_000 * share)]
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                audio.read_audio(tmp_path / "cut.flac")
            except AudioError:
                assert share == 0.01 and not seen
            else:
                assert [w.category for w in seen] == [AudioWarning]


def refused(path: Path, why: str) -> str:
    with pytest.raises(AudioError, match=why) as error:
        audio.read_audio(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert message.count(str(path)) == 1
    return message


# Headers that do not state the length ---------------------------------------------------------


def patched(path: Path, kind: str, length: int) -> None:
    """State another length of the samples, as programs do that write to a pipe."""
    data = bytearray(path.read_bytes())
    if kind == "au":
        data[8:12] = struct.pack(">I", length)
    elif kind == "aiff":
        at = data.index(b"SSND") + 4
        data[at : at + 4] = struct.pack(">I", length)
        data[4:8] = struct.pack(">I", length)
    elif kind == "caf":
        at = data.index(b"data") + 4
        data[at : at + 8] = struct.pack(">q", length)
    elif kind == "rf64":
        data[20:44] = struct.pack("<QQQ", length, length, length)
    else:
        order = ">" if kind == "rifx" else "<"
        at = data.index(b"data") + 4
        data[at : at + 4] = struct.pack(order + "I", length)
        data[4:8] = struct.pack(order + "I", length)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        *(("wav", n) for n in (0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF - 36)),
        *(("rifx", n) for n in (0, 0xFFFFFFFF, 0x7FFFF000)),
        ("rf64", 0), ("au", 0), ("au", 0xFFFFFFFF), ("caf", -1), ("caf", 0),
        ("aiff", 0), ("aiff", 0xFFFFFFFF),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_a_length_that_is_not_stated_is_found(tmp_path, kind, length, channels):
    x = noise(4999, channels)
    path = made(tmp_path / "piped", kind, x)
    patched(path, kind, length)
    found, warned = opened(path)
    assert warned == []
    np.testing.assert_allclose(found, x.reshape(4999, channels), atol=1 / 32768)


@pytest.mark.parametrize(
    ("kind", "tail"),
    [("wav", b""), ("rifx", b""), ("wav", b"LIST\x04\0\0\0INFO"), ("rifx", b"LIST\0\0\0\x04INFO")],
)
def test_no_sound_stays_no_sound(tmp_path, kind, tail):
    path = made(tmp_path / "empty.wav", kind, np.zeros(0))
    with path.open("ab") as file:
        file.write(tail)
    refused(path, "holds no samples")


def test_a_chunk_before_the_samples_is_passed(tmp_path):
    x = noise(4000)
    path = made(tmp_path / "piped.wav", "wav", x)
    data = path.read_bytes()
    at = data.index(b"data")
    odd = b"LIST" + struct.pack("<I", 5) + b"odd  \0"
    path.write_bytes(data[:at] + odd + b"data" + bytes(4) + data[at + 8 :])
    found, _ = opened(path)
    np.testing.assert_allclose(found[:, 0], x, atol=1 / 32768)


def state_flac_samples(path: Path, n_samples: int) -> None:
    data = bytearray(path.read_bytes())
    fields = int.from_bytes(data[18:26], "big")
    data[18:26] = ((fields >> 36 << 36) | n_samples).to_bytes(8, "big")
    path.write_bytes(data)


def test_flac_of_unknown_length_and_of_a_wrong_one(tmp_path):
    x = noise(50_001, 2)
    path = made(tmp_path / "tone.flac", "flac", x)
    state_flac_samples(path, 0)
    found, warned = opened(path)
    assert warned == []
    np.testing.assert_allclose(found, x, atol=1 / 32768)
    state_flac_samples(path, 80_000)
    found, (warned,) = opened(path)
    assert "cut short (truncated): ends after 3.1 s of the 5.0 s" in warned
    assert 50_001 - recording.READ_FRAMES <= len(found) <= 50_001
    np.testing.assert_allclose(found, x[: len(found)], atol=1 / 32768)


def test_a_flac_of_unknown_length_that_is_cut_is_damaged(tmp_path):
    path = made(tmp_path / "tone.flac", "flac", noise(90_000))
    state_flac_samples(path, 0)
    path.write_bytes(path.read_bytes()[:-70_000])
    found, (warned,) = opened(path)
    assert 30_000 < len(found) < 60_000
    assert warned.endswith("cut short (truncated or damaged): cannot be read beyond 3.3 s")


BIT_RATES = {  # kbit/s of layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mp3_frames(data: bytes) -> list[bytes]:
    frames, at = [], 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        is_mpeg_1 = bool(data[at + 1] & 8)
        rate = (44_100, 48_000, 32_000)[data[at + 2] >> 2 & 3]
        kilobits = BIT_RATES[is_mpeg_1][data[at + 2] >> 4]
        if not is_mpeg_1:
            rate //= 2
        size = (144_000 if is_mpeg_1 else 72_000) * kilobits // rate + (data[at + 2] >> 1 & 1)
        frames.append(data[at : at + size])
        at += size
    return frames


ID3 = b"ID3\x04\0\0\0\0\x02\x10" + b"TIT2\0\0\0\x05\0\0\0song".ljust(0x110, b"\0")


@pytest.mark.parametrize("rate", [44_100, 32_000, 22_050, 16_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("tag", [b"", ID3], ids=["plain", "ID3"])
def test_variable_mp3_without_a_length_is_read_to_its_end(tmp_path, rate, channels, tag):
    """The bit rate of the first frames, of something simple, says nothing about the rest."""
    time = np.arange(5 * rate) / rate
    x = np.where(time < 2.5, 0.1 * np.sin(2000 * time), 0.7 * noise(len(time)))
    x[-rate // 2 :] = 0.5 * np.sin(2 * np.pi * 700 * time[-rate // 2 :])
    path = tmp_path / "variable.mp3"
    x = np.repeat(x[:, None], channels, axis=1).astype(np.float32)
    sf.write(path, x, rate, bitrate_mode="VARIABLE", compression_level=0.3)
    frames = mp3_frames(path.read_bytes())
    assert any(name in frames[0] for name in (b"Xing", b"Info"))
    assert len({frame[2] >> 4 for frame in frames}) > 2, "the bit rate varies"
    path.write_bytes(tag + b"".join(frames[1:]))
    found, warned = opened(path)
    per_frame = 1152 if rate > 24_000 else 576
    assert abs(len(found) - per_frame * (len(frames) - 1)) <= per_frame and warned == []
    end = found[len(x) - rate // 4 : len(x) - rate // 8, 0]
    assert 0.25 < np.sqrt(np.mean(end**2)) < 0.45  # the last tone, which came through to its end


@pytest.mark.parametrize("kind", ["mp3", "flac", "wav"])
def test_tags_in_front_of_the_sound_are_passed(tmp_path, kind):
    path = made(tmp_path / "tagged", kind, noise(20_000))
    plain, _ = opened(path)
    path.write_bytes(ID3 + path.read_bytes())
    tagged, warned = opened(path)
    assert warned == []
    np.testing.assert_allclose(tagged, plain, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "aiff", "ogg"])
def test_zeros_in_front_of_the_sound_are_passed(tmp_path, kind):
    path = made(tmp_path / "shifted", kind, noise(20_000))
    plain, _ = opened(path)
    path.write_bytes(bytes(777) + path.read_bytes())
    found, warned = opened(path)
    assert warned == []
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_zeros_in_front_of_a_header_without_a_length(tmp_path):
    path = made(tmp_path / "both.wav", "wav", noise(9_000))
    patched(path, "wav", 0)
    path.write_bytes(bytes(64) + path.read_bytes())
    assert len(opened(path)[0]) == 9_000


# What is not audio ------------------------------------------------------------------------------


def png() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    rows = zlib.compress(np.random.default_rng(0).bytes(65 * 64))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)),
            chunk(b"IDAT", rows),
            chunk(b"IEND", b""),
        ]
    )


OTHERS = {
    "text": b"Kyrie eleison, in four voices.\n" * 400,
    "page": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n" * 99,
    "zeros": bytes(50_000),
    "picture": png(),
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "one byte": b"R",
    "header only": b"RIFF",
    "sync only": b"\xff\xfb",
}


@pytest.mark.parametrize("suffix", [*audio.FORMATS, "raw", "snd", "gsm", "vox", "sd2", ""])
def test_what_is_no_audio_is_refused_by_any_name(tmp_path, suffix):
    for name, content in OTHERS.items():
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        refused(path, "not readable as audio")


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_audio_is_read_by_any_name(tmp_path, kind):
    for name in ("song.txt", "song.au", "song.raw", "song", "song.mp3.part"):
        path = made(tmp_path / name, kind, noise(9_000))
        assert len(opened(path)[0]) == 9_000


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(device):
    refused(Path(device), "is a device, not an audio file")


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_sample_rates_of_no_recording_are_refused(tmp_path, rate):
    path = tmp_path / "rate.wav"
    data = bytearray(made(path, "wav", noise(9_000)).read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    refused(path, f"sample rate of {rate} Hz, which no recording has")


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite"), (1e30, "1e.30"),
     (-1e5, "1e.05")],
)  # fmt: skip
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channel", [0, 1])
def test_samples_of_no_recording_are_refused(tmp_path, value, why, subtype, channel):
    x = noise(40_000, 2)
    x[39_999, channel] = value
    sf.write(tmp_path / "x.wav", x, RATE, subtype)
    refused(tmp_path / "x.wav", why)


def test_floats_above_full_scale_are_read(tmp_path):
    sf.write(tmp_path / "hot.wav", 20 * noise(9_000), RATE, "FLOAT")
    assert np.abs(opened(tmp_path / "hot.wav")[0]).max() > 9


# Files that are cut short -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.62, 0.9])
def test_a_file_that_is_cut_is_read_and_named(tmp_path, kind, share):
    path = made(tmp_path / "cut", kind, noise(10 * RATE))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    found, (warned,) = opened(path)
    assert warned.startswith(f"{path}: cut short (truncated")
    assert f"{len(found) / RATE:.1f} s" in warned
    assert share * 10 - 1.6 < len(found) / RATE < share * 10 + 0.6
    if kind not in ("ogg", "opus", "caf"):
        assert "of the 10.0 s that its header promises" in warned


def test_a_cut_mp3_prints_nothing_of_its_own(tmp_path, capfd):
    path = made(tmp_path / "cut.mp3", "mp3", noise(10 * RATE))
    path.write_bytes(path.read_bytes()[:30_000])
    opened(path)
    assert capfd.readouterr().err == ""


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(KINDS)),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000]),
    n_samples=st.integers(2_400, 70_000),
    channels=st.integers(1, 2),
    tail=st.sampled_from([b"", b"\0" * 3, b"TAG".ljust(128, b" ")]),
)
def test_whole_files_are_not_called_cut(tmp_path, kind, rate, n_samples, channels, tail):
    if kind == "opus" and rate not in (8_000, 16_000, 48_000):
        return
    path = made(tmp_path / "whole", kind, noise(n_samples, channels), rate)
    if kind == "mp3":
        path.write_bytes(path.read_bytes() + tail)
    found, warned = opened(path)
    assert warned == [] and len(found) == n_samples


# Pipes and names --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_gives_what_the_file_gives(tmp_path, kind):
    path, pipe = made(tmp_path / "file", kind, noise(60_000, 2)), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
    writer.start()
    found, warned = opened(pipe)
    writer.join()
    assert warned == []
    np.testing.assert_array_equal(found, opened(path)[0])


def test_an_empty_pipe_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"",))
    writer.start()
    refused(pipe, "the pipe is empty")
    writer.join()


def test_a_pipe_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MOST_BYTES", 2**20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write():
        with pytest.raises(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(AudioError, match="write it to a file first"):
        audio.read_audio(pipe)
    writer.join(5)
    assert not writer.is_alive()


def test_names_of_any_bytes_are_read_and_written(tmp_path):
    file = made(tmp_path / "plain", "wav", noise(5_000))
    for name in (b"caf\xe9.wav", b"\xff\xfe", "ноты 🎻.flac".encode(), b"a\nb.wav", b"-"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(file.read_bytes())
        assert audio.read_audio(path).size
        audio.write_audio(path.with_name(path.stem + "o.wav"), noise(5_000), sample_rate=RATE)


def test_folders_of_any_bytes_are_written_to(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    audio.write_audio(folder / "x.wav", noise(5_000), sample_rate=RATE)
    assert [p.name for p in folder.iterdir()] == ["x.wav"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("x" * 300 + ".wav", "cannot be opened .file name too long"),
     ("nul\0.wav", "cannot be opened .*null"),
     ("loop.wav", "cannot be opened .too many levels"),
     ("file.wav/x.wav", "cannot be opened .not a directory"),
     ("", "is a folder, not an audio file")],
)  # fmt: skip
def test_names_of_no_file_are_refused(tmp_path, name, why):
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "file.wav").touch()
    refused(tmp_path / name, why)


# Blocks and channels ----------------------------------------------------------------------------


@given(
    kind=st.sampled_from([k for k in KINDS if k not in ("mp3", "opus")]),
    n_samples=st.integers(2_500, 60_000),
    channels=st.integers(1, 6),
    size=st.one_of(st.integers(50, 3_000), st.integers(15_000, 100_000)),
)
def test_blocks_are_the_file(tmp_path, kind, n_samples, channels, size):
    path = made(tmp_path / "x", kind, noise(n_samples, channels))
    whole, _ = sf.read(path, dtype="float32", always_2d=True)
    with recording.open_recording(path) as found:
        for _ in range(2):  # it can be decoded again
            blocks = list(found.blocks(size))
            assert [len(b) for b in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert 0 < len(blocks[-1]) <= size
            np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert (found.n_samples, found.n_channels, found.sample_rate) == (*whole.shape, RATE)
        assert found.seconds == pytest.approx(n_samples / RATE)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize(
    "weights", [(0.5, -0.48), (0.4, -0.45), (0.2, -0.3, 0.1), (0.3, -0.1, -0.1, -0.1)]
)
def test_channels_that_cancel_are_heard_by_the_loudest(tmp_path, config, weights, offset):
    x = noise(30_000)
    channels = np.outer(x, weights) + offset * np.linspace(0.2, 1, len(weights))
    channels = channels.astype(np.float32)
    path = tmp_path / "wide.wav"
    sf.write(path, channels, config.sample_rate, "FLOAT")
    loudest = channels[:, int(np.argmax(np.abs(weights)))]
    np.testing.assert_allclose(audio.read_audio(path), loudest, atol=1e-6)
    found = audio.as_waveform(channels, what="content", config=config)
    np.testing.assert_allclose(found, loudest, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 3, 5, 16])
@pytest.mark.parametrize("correlated", [True, False])
def test_other_channels_are_averaged(tmp_path, config, channels, correlated):
    x = np.stack([noise(30_000, seed=0 if correlated else c) for c in range(channels)], axis=1)
    x *= np.linspace(1, 0.3, channels)
    sf.write(tmp_path / "many.wav", x, config.sample_rate, "FLOAT")
    for found in (
        audio.read_audio(tmp_path / "many.wav"),
        audio.as_waveform(x, what="content", config=config),
    ):
        np.testing.assert_allclose(found, x.mean(axis=1), atol=1e-6)


def test_cancelling_channels_are_resampled_like_others(tmp_path, tone, peak_hz):
    x = tone(500.0, 2.0, sample_rate=48_000)
    sf.write(tmp_path / "wide.flac", np.stack([x, -x], axis=1), 48_000)
    found = audio.read_audio(tmp_path / "wide.flac")
    assert len(found) == 44_100 and peak_hz(found) == pytest.approx(500, abs=0.5)
    assert audio.rms_dbfs(found) == pytest.approx(audio.rms_dbfs(x), abs=0.1)


def test_a_long_file_of_many_channels_takes_the_memory_of_a_short_one(tmp_path):
    """Three minutes of 8 channels at 96 kHz, 550 MB as floats, in a FLAC of a few kB."""
    path = tmp_path / "long.flac"
    with sf.SoundFile(path, "w", 96_000, 8, "PCM_16") as file:
        for _ in range(180):
            file.write(np.full((96_000, 8), 0.1, np.float32))
    assert path.stat().st_size < 2**20
    code = (
        "import resource, sys; from audiostyle_lib.signal import audio\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(audio.read_audio(sys.argv[1])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    n_samples, kilobytes = map(int, done.stdout.split())
    assert n_samples == 180 * 22_050
    assert kilobytes < 120_000  # of which the waveform is 16 000, twice while it is joined


def test_a_file_that_claims_hours_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "hours.flac"
    made(path, "flac", noise(20_000))
    state_flac_samples(path, RATE * 3600 * 20)
    refused(path, "lasts 1200 minutes or more, at most 60 are taken")


def test_what_lies_in_the_working_folder_has_no_say(tmp_path, monkeypatch):
    sf.write(tmp_path / "x.mp3", noise(22_050), 22_050)
    (tmp_path / "._").write_bytes(bytes(300))  # as a copy from a Mac may leave it
    monkeypatch.chdir(tmp_path)
    assert len(audio.read_audio("x.mp3")) == 22_050


@pytest.mark.parametrize("missing", [1, 20, 1_000])
def test_an_ogg_without_the_whole_of_its_last_page_is_named(tmp_path, missing):
    sf.write(tmp_path / "x.ogg", noise(66_150), 22_050)
    (tmp_path / "x.ogg").write_bytes((tmp_path / "x.ogg").read_bytes()[:-missing])
    assert "cut short" in opened(tmp_path / "x.ogg")[1][0]


def test_the_decoder_keeps_its_remarks_to_itself(tmp_path, capfd):
    (tmp_path / "x.mp3").write_bytes(np.random.default_rng(1).bytes(200_000))
    refused(tmp_path / "x.mp3", "not readable as audio .Format not recognised")
    assert capfd.readouterr().err == ""
