"""The embedded corpus: English that eSpeak NG speaks, over drawn noise and channels.

A speaker is a voice variant, an accent, a pitch and a rate. Text comes from a closed grammar. On disk:

    <root>/<split>/<speaker>/<speaker>-00000.flac   16 kHz, mono, 16 bit
    <root>/<split>/<speaker>/index.tsv              id, samples, noise source, SNR (dB), text
"""

import ctypes
import io
import os
import re
from _ctypes import dlclose
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np

from local.config import check_whole
from local.corpora import upper_case
from local.errors import InputError
from local.manifest import Utterance
from local.workers import end_with_parent

RATE = 16000  # samples a second of the corpus
ESPEAK_RATE = 22050

# Voice variants by split and gender. Near-identical ones (klatt5 and klatt4, f4 and aunty, ...) are left out, for a
# twin in another split would give the speaker away; what still sounds alike stays within one split. Left out as
# well: what is hardly intelligible or no human voice (whisper whisperf caleb croak kaukovalta Alicia zac ian Lee
# Demonic shelby norbert Marco david marcelo UniRobot anikaRobot announcer robosoft* RicishayMax*).
VARIANTS = {
    "pretrain": {
        "f": "Annie anika aunty belinda f3 linda",
        "m": "Alex AnxiousAndy Denis Gene Hugo Jacky Michael Reed Tweaky edward grandpa gustave iven klatt klatt3"
        " klatt4 klatt6 m1 m3 m6 max michel mike2 sandro",
    },
    "train": {"f": "f2 f5", "m": "Mario m4 m5 pedro"},
    "dev": {"f": "grandma", "m": "Storm boris m2 pablo travis"},
    "test": {"f": "Andrea f1 steph", "m": "Andy antonio ed m7 m8 paul quincy rob victor"},
}
SPLITS = tuple(VARIANTS)
# British English is plain "en".
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan", "en-029", "en", "en-gb-x-gbcwmd")

NAMES = "ANNA|EMMA|LUCY|NORA|JANE|RUTH|ZOE|KIM|ADAM|BEN|DAN|FRED|HUGO|IVAN|JACK|KARL|OMAR|PAUL|SAM|TOM"
# A context-free grammar: | separates equally likely expansions, {x} stands for rule x. It has no homophones (FOR and
# FOUR, TO and TWO) and no heteronyms (CLOSE, READ): every word is audible as what is written.
GRAMMAR = {
    "sentence": "{trade} {hundreds} {goods} AND {hundreds} {goods}"
    "|{dial} {name} AT {digit} {digit} {digit} {digit} {digit} {digit}"
    "|{come} {name} ON {month} {day} AT {hour} {minute} {half}"
    "|{come} {name} ON {weekday} {month} {day} AT {hour} O'CLOCK"
    "|{move} THE {color} {object} {near} THE {color} {furniture} IN THE {room}"
    "|SET THE {room} {device} AT {tens} {measure} UNTIL {hour} {minute} {half}"
    "|{code} {letter} {letter} {digit} {digit} {letter} {letter}"
    "|{spelled} {digit} {digit} {digit} {digit} {street} {road}",
    "hundreds": "{unit} HUNDRED {tens}|{unit} HUNDRED {tens}|{tens}",
    "tens": "{unit}|{teen}|{ten}|{ten} {unit}|{ten} {unit}|{ten} {unit}",
    "digit": "ZERO" + "|{unit}" * 9,
    "unit": "ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE",
    "teen": "TEN|ELEVEN|TWELVE|THIRTEEN|FOURTEEN|FIFTEEN|SIXTEEN|SEVENTEEN|EIGHTEEN|NINETEEN",
    "ten": "TWENTY|THIRTY|FORTY|FIFTY|SIXTY|SEVENTY|EIGHTY|NINETY",
    "day": "{first}|{tenth}|TWENTIETH|TWENTY {first}|THIRTIETH",
    "first": "FIRST|SECOND|THIRD|FOURTH|FIFTH|SIXTH|SEVENTH|EIGHTH|NINTH",
    "tenth": "TENTH|ELEVENTH|TWELFTH|THIRTEENTH|FOURTEENTH|FIFTEENTH|SIXTEENTH|SEVENTEENTH|EIGHTEENTH|NINETEENTH",
    "weekday": "MONDAY|TUESDAY|WEDNESDAY|THURSDAY|FRIDAY|SATURDAY|SUNDAY",
    "month": "JANUARY|FEBRUARY|MARCH|APRIL|MAY|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER",
    "hour": "{unit}|{unit}|{unit}|TEN|ELEVEN|TWELVE",
    "minute": "{teen}|{fifties}|{fifties} {unit}|{fifties} {unit}",
    "fifties": "TWENTY|THIRTY|FORTY|FIFTY",
    "half": "A M|P M",
    "letter": "|".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "name": NAMES,
    "spelled": "|".join(f"{name} {' '.join(name)}" for name in NAMES.split("|")),
    "trade": "BUY|SELL|ADD|COUNT|ORDER",
    "goods": "APPLES|BOTTLES|CARDS|DOLLARS|EGGS|POTATOES|TICKETS|STAMPS",
    "dial": "CALL|DIAL|TEXT|PHONE",
    "come": "MEET|INVITE|VISIT|REMIND",
    "move": "PUT|MOVE|DROP|FIND",
    "near": "ON|UNDER|BEHIND|BESIDE",
    "color": "BLACK|BLUE|BROWN|GREEN|ORANGE|PINK|PURPLE|RED|WHITE|YELLOW",
    "object": "BAG|BALL|BASKET|BOOK|BOX|COAT|CUP|HAMMER|HAT|KNIFE|PENCIL|SPOON",
    "furniture": "BED|BENCH|CHAIR|DESK|SHELF|SOFA|TABLE|CUPBOARD",
    "room": "BATHROOM|BEDROOM|CELLAR|GARAGE|HALL|KITCHEN|LIBRARY|OFFICE",
    "device": "FAN|HEATER|LAMP|OVEN|RADIO|SPEAKER",
    "measure": "DEGREES|PERCENT",
    "code": "CODE|PASSWORD|FLIGHT|TRAIN",
    "street": "BRIDGE|CHURCH|FOREST|GARDEN|LAKE|MARKET|RIVER|VALLEY",
    "road": "STREET|LANE|AVENUE",
}


def sentence(rng: np.random.Generator) -> str:
    """Draw a sentence: upper-case words with spaces between them."""
    text = "{sentence}"
    while "{" in text:
        text = re.sub(r"{(\w+)}", lambda rule: _pick(rng, GRAMMAR[rule[1]].split("|")), text)
    return text


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[rng.integers(len(options))]  # four times as fast as rng.choice


def split_of(text: str) -> str:
    """The one split that may use a sentence: a hash decides, so splits share none at any size and seed."""
    return SPLITS[crc32(text.encode()) % len(SPLITS)]


def synthesize(text: str, voice: str, pitch: int, rate: int) -> np.ndarray:
    """Speak an upper-case sentence in the eSpeak voice `accent+variant`.

    `pitch` is 0 to 100 (50: the variant's own), `rate` is in words a minute. Returns [samples] at 22050 Hz
    in [-1, 1]. eSpeak's output depends on all that its process has said, through static variables that
    espeak_Initialize does not reset. So each sentence gets a freshly loaded library (3 ms).
    """
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except (ImportError, OSError) as error:
        raise InputError(f"espeakng_loader: cannot load eSpeak NG ({error}); pip install espeakng-loader") from error
    try:
        data = espeakng_loader.get_data_path()
        return _speak(library, min(data, os.path.relpath(data), key=len), text, voice, pitch, rate)
    finally:
        library.espeak_Terminate()
        dlclose(library._handle)


def _speak(library: ctypes.CDLL, data: str, text: str, voice: str, pitch: int, rate: int) -> np.ndarray:
    chunks = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(samples, length, _):
        if samples and length > 0:
            chunks.append(ctypes.string_at(samples, 2 * length))
        return 0

    # Numbers are speak_lib.h's: 2 = synchronous, 0x8000 = return an error instead of exit(1); parameter 1 is the
    # rate and 3 the pitch; 1 = UTF-8. A path of 160 bytes does not fit eSpeak's buffer.
    found = library.espeak_Initialize(2, 0, data.encode(), 0x8000)
    if found != ESPEAK_RATE:
        raise InputError(f"{data}: eSpeak NG gives {found}, expected {ESPEAK_RATE} Hz; use a shorter path or reinstall")
    library.espeak_ng_SetRandSeed(1)  # espeak_Initialize seeds with the time
    ctypes.CDLL(None).srand(1)  # the Klatt voices draw from the C library's generator instead
    library.espeak_SetSynthCallback(collect)
    # An unknown variant is no error to eSpeak, which then speaks in the plain accent.
    known = os.path.isfile(os.path.join(data, "voices", "!v", voice.split("+")[1]))
    if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise InputError(f"{voice}: no such voice in {data}; install the espeakng-loader of requirements.txt")
    library.espeak_SetParameter(1, rate, 0)
    library.espeak_SetParameter(3, pitch, 0)
    # Lower case, because capitals are read as abbreviations; single letters are read by name, but for the article A.
    said = " ".join("eigh" if word == "A" else word if len(word) == 1 else word.lower() for word in text.split())
    library.espeak_Synth(said.encode(), len(said) + 1, 0, 1, 0, 1, None, None)
    if not chunks:
        raise InputError(f"{voice}: eSpeak NG gave no samples for {text!r}, expected speech; reinstall espeakng-loader")
    return np.frombuffer(b"".join(chunks), np.int16) / 32768


def _curve(rng: np.random.Generator, size: int, spread: float) -> np.ndarray:
    """A random smooth gain over `size` frequencies: tilt and broad bumps, in all about `spread` dB."""
    order, grid = np.arange(1, 7), np.linspace(0, 1, 129)
    decibels = rng.normal(size=6) * spread / order @ np.cos(np.pi * np.outer(order, grid))
    return np.interp(np.linspace(0, 1, size), grid, 10 ** (decibels / 20))


def _noise(source: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """[size] samples of unit power; `source` fixes spectrum and modulation, `rng` draws the rest."""
    fixed = np.random.default_rng(crc32(source.encode()))
    gain = _curve(fixed, size // 2 + 1, 20)
    depth, hertz = fixed.uniform(0, 0.9), fixed.uniform(0.3, 5)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * gain, size)
    noise *= 1 + depth * np.sin(2 * np.pi * (hertz * np.arange(size) / RATE + rng.uniform()))
    return noise / np.sqrt(np.mean(noise**2))


@dataclass(frozen=True)
class Speaker:
    """Who speaks: `voice` is eSpeak's `accent+variant`, `pitch` 0 to 100, `rate` in words a minute."""

    id: str
    gender: str
    voice: str
    pitch: int
    rate: int


@dataclass(frozen=True)
class Espeak:
    """The corpus; conf/corpus/espeak.yaml says what each field means. `root` is the folder that download() filled."""

    name: str
    root: str
    seed: int
    minutes: dict[str, float]
    snr: list[float]
    channel: float
    accents: int
    noises: int

    def __post_init__(self):
        if not 1 <= self.accents <= len(ACCENTS):
            raise InputError(f"corpus.accents: found {self.accents}, expected 1 to {len(ACCENTS)}; change it")
        for name, least in (("accents", 1), ("noises", 1), ("seed", 0)):
            check_whole(f"corpus.{name}", getattr(self, name), least)
        if not isinstance(self.minutes, dict) or set(self.minutes) - set(SPLITS):
            raise InputError(f"corpus.minutes={self.minutes}: expected numbers for {', '.join(SPLITS)} alone")
        if len(self.snr) != 2 or self.snr[0] > self.snr[1]:
            raise InputError(f"corpus.snr={self.snr}: expected two numbers of dB, the lower first")

    def speakers(self, split: str) -> list[Speaker]:
        """The speakers of a split, sorted by id."""
        found = []
        genders = [(variant, gender) for gender, names in VARIANTS[split].items() for variant in names.split()]
        for index, (variant, gender) in enumerate(genders):
            for accent in (ACCENTS * 2)[index % len(ACCENTS) :][: self.accents]:
                name = f"{variant}_{accent}".replace("-", "_")  # no "-": utterances then sort as their speakers
                rng = self._rng("speaker", name)
                pitch, rate = int(rng.integers(30, 71)), int(rng.integers(160, 221))
                found.append(Speaker(name, gender, f"{accent}+{variant}", pitch, rate))
        return sorted(found, key=lambda speaker: speaker.id)

    def noise_sources(self, split: str) -> list[str]:
        """Names of the noise sources of a split."""
        return [f"{split}-{self.seed}-{number}" for number in range(self.noises)]

    def download(self, out: Path, workers: int) -> None:
        """Synthesize the corpus into `out`, over what a killed run left: the same bytes with any `workers`."""
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        shards = [(out, split, speaker) for split in self.minutes for speaker in self.speakers(split)]
        # Spawned, because the caller may hold threads, which a fork would break.
        with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
            done = pool.map(self._record, *zip(*shards, strict=True))
            for _ in track(done, "espeak", len(shards), console=console, disable=not console.is_terminal):
                pass

    def transcripts(self) -> list[str]:
        """None: what download() made does not change."""
        return []

    def _record(self, out: Path, split: str, speaker: Speaker) -> None:
        """One speaker's share of a split, whatever the others say: folder, audio and index."""
        import soundfile

        folder = out / split / speaker.id
        folder.mkdir(parents=True, exist_ok=True)
        rng = self._rng("record", speaker.id)
        missing = self.minutes[split] * 60 * RATE / len(self.speakers(split))  # samples
        with open(folder / "index.tsv", "w", encoding="utf-8") as index:
            for number in count():
                if missing <= 0:
                    return
                text = next(text for text in iter(lambda: sentence(rng), None) if split_of(text) == split)
                source = _pick(rng, self.noise_sources(split))
                snr = rng.uniform(*self.snr)
                audio = self._render(text, speaker, source, snr, rng)
                name = f"{speaker.id}-{number:05d}"
                encoded = io.BytesIO()
                soundfile.write(encoded, audio, RATE, subtype="PCM_16", format="FLAC")
                # Not by libsndfile, which does not say that a disk is full.
                (folder / f"{name}.flac").write_bytes(encoded.getbuffer())
                index.write(f"{name}\t{len(audio)}\t{source}\t{snr:.1f}\t{text}\n")
                missing -= len(audio)

    def _render(self, text: str, speaker: Speaker, source: str, snr: float, rng: np.random.Generator) -> np.ndarray:
        """Int16 [samples]: speech through a drawn channel, noise `snr` dB below it, a drawn level that cannot clip."""
        from scipy.signal import resample_poly

        speech = resample_poly(synthesize(text, speaker.voice, speaker.pitch, speaker.rate), 320, 441)
        before, after = rng.integers(RATE // 20, RATE // 5, size=2)
        after += -(before + len(speech) + after) % 800  # a length with small factors: its FFT is several times faster
        speech = np.pad(speech, (before, after))
        speech = np.fft.irfft(np.fft.rfft(speech) * _curve(rng, len(speech) // 2 + 1, self.channel), len(speech))
        power = np.mean(speech**2)
        audio = speech + _noise(source, rng, len(speech)) * np.sqrt(power * 10 ** (-snr / 10))
        peak = 10 ** (rng.uniform(-15, -1) / 20)
        return np.round(audio * (32767 * peak / np.abs(audio).max())).astype(np.int16)

    def utterances(self, split: str) -> Iterator[Utterance]:
        """The utterances of a split, sorted by id; needs download() to have filled `root`."""
        for speaker in self.speakers(split):
            folder = Path(self.root) / split / speaker.id
            if not (folder / "index.tsv").exists():
                raise InputError(f"{folder}/index.tsv: not found; leave corpus.root as it is, or set corpus= to yours")
            with open(folder / "index.tsv", encoding="utf-8") as index:
                for line in index:
                    name, samples, _, _, text = line.rstrip("\n").split("\t")
                    audio = str(folder / f"{name}.flac")
                    text = self.normalize(text)
                    yield Utterance(name, speaker.id, audio, int(samples) / RATE, text, speaker.gender)

    def normalize(self, text: str) -> str:
        """Upper case, as the grammar has it; apostrophes (O'CLOCK) stay."""
        return upper_case(text)

    def _rng(self, *key: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, crc32("/".join(key).encode())])
