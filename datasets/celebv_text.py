"""CelebV-Text (Yu et al. 2023, celebv-text/CelebV-Text): 70,000 face clips; the paper takes images
of 1,000 (Appendix D).

Relied on, from the authors' README, script and issues 5 and 8: `celebvtext_info.json` maps each
clip's name, below "clips" or "clips_set1" and "clips_set2" (of which the second repeats 2,975 names
of the first), to ytb_id, duration (start_sec, end_sec; one example of the README calls the same
seconds start_frame, end_frame), bbox (top, bottom, left, right) and version; the processed clip is
NAME.mp4, cropped to the face already. Clips circulate in slices, folders of about 1,000 each.

The paper takes the first five of 69 slices, of their tracks the 1,000 of highest quality, and of
each ten images, one every 20 frames. What it leaves open is settled so: slices are folders that
hold mp4 files, in natural order of their names; a track's quality is the mean over frames 0, 20,
..., 180; a frame without a face, or nearly equal to one already taken of the track (as the protocol
measures copies), is passed over for the next 20th; a track that does not give ten, or shows what a
better track of the same video shows, makes room for the next one. A person is a track, so any two
images of a person are at least 20 frames apart, as the references of F.2 must be.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from fsrbench.datasets.common.frozen import Choice, Count, Findings, Plan, composed, halved
from fsrbench.datasets.common.quality import Measured, Quality, get_quality, measured
from fsrbench.datasets.common.video import duration, frames
from fsrbench.engine.copies import DUPLICATE, Look, look, near_duplicates
from fsrbench.engine.data import Entry, Source, dataset, pooled
from fsrbench.engine.keys import code_digest, preparation_digest
from fsrbench.engine.splits import signature_distances
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.prepare import Preparation, align
from fsrbench.imaging import digest, encode_ppm, load
from fsrbench.profiles import PROFILES
from fsrbench.progress import progress
from fsrbench.weights.catalogue import file_digest

NAME = "celebv-text"
INFO = "celebvtext_info.json"
PUBLISHED, PAPER = Count(70000, 0, "tracks"), Count(1000, 10000)
SLICES, STEP, IMAGES = 5, 20, 10
# Copies are told apart at the size and framing at which `engine.copies` was measured.
_LOOK = Preparation(PROFILES["mini"].size, PROFILES["mini"].frame)
_SECTIONS = ("clips", "clips_set1", "clips_set2")


@dataclass(frozen=True)
class Clip:
    """A clip of the list: its name, source video, and seconds that it lasts."""

    name: str
    video: str
    seconds: float


@dataclass(frozen=True)
class Track:
    """A clip on disk, below the root, with its digest and quality."""

    clip: Clip
    path: str
    sha256: str
    quality: float = 0.0


@dataclass(frozen=True)
class Frame:
    """An image of a track: number of the frame, digest in the store, and what it shows (256,)."""

    number: int
    image: str
    signature: np.ndarray


def _second(fields: dict, end: str) -> float:
    """Start or end of a clip in seconds, under either of its published names."""
    duration = fields["duration"]
    return float(duration[f"{end}_frame" if f"{end}_frame" in duration else f"{end}_sec"])


def _clip(name: str, fields: dict) -> Clip:
    """A clip of the list.

    Raises:
        FsrError: a field is missing or of another kind.
    """
    try:
        for side in ("top", "bottom", "left", "right"):
            float(fields["bbox"][side])
        clip = Clip(name, str(fields["ytb_id"]), _second(fields, "end") - _second(fields, "start"))
    except KeyError as error:
        raise FsrError(f"clip {name}", f"list entry lacks {error.args[0]}") from None
    except (TypeError, ValueError):
        raise FsrError(f"clip {name}",
                       "list entry has a field of another kind than published") from None
    if not clip.seconds > 0:
        raise FsrError(f"clip {name}", "list entry ends before it begins")
    return clip


def read_list(path: Path, findings: Findings) -> dict[str, Clip]:
    """Clips by name; malformed ones, and names given twice in one section, are left out and named.

    Raises:
        FsrError: it is not JSON, or not of the published form.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple]) -> dict:
        found: dict = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise FsrError(f"list {path}", f"cannot be read ({error.strerror})",
                       f"put the authors' {INFO} there") from None
    except ValueError as error:
        raise FsrError(f"list {path}", f"is not JSON ({error})", "fetch it again") from None
    sections = [data[name] for name in _SECTIONS if name in data] or [data]
    if not all(isinstance(section, dict) and section for section in sections):
        raise FsrError(f"list {path}", "holds no clips", "fetch it again")
    clips: dict[str, Clip] = {}
    for name, fields in ((n, f) for section in sections for n, f in section.items()):
        stem = composed(name.removesuffix(".mp4"))
        if name in twice:
            findings.add("clip given twice in the list", name)
        elif stem in clips:
            findings.remarks.add("name of an earlier section again", name)
        else:
            try:
                clips[stem] = _clip(stem, fields)
            except FsrError as error:
                findings.add(error.cause, name)
    return clips


def _natural(path: Path) -> list:
    """Sort key in which 2 comes before 10, whatever the locale."""
    return [(int(word), "") if word.isdigit() else (-1, word)
            for word in re.split(r"(\d+)", composed(path.as_posix()))]


def first_slices(root: Path, findings: Findings) -> list[Path]:
    """mp4 files of the first slices, by name; what is missing of five slices is remarked.

    Raises:
        FsrError: there is none.
    """
    files = [p for p in root.rglob("*.mp4") if not p.name.startswith(".")]
    slices = sorted({p.parent for p in files}, key=lambda p: _natural(p.relative_to(root)))
    if not slices:
        raise FsrError(f"data set {NAME} {root}", "holds no mp4 file",
                       "put the first five slices of clips there")
    if len(slices) < SLICES:
        findings.remarks.add(f"fewer than {SLICES} slices",
                             ", ".join(s.relative_to(root).as_posix() for s in slices))
    chosen = set(slices[:SLICES])
    return sorted((p for p in files if p.parent in chosen),
                  key=lambda p: (composed(p.stem), p.as_posix()))


def on_disk(root: Path, clips: dict[str, Clip], findings: Findings) -> list[Track]:
    """Tracks of the first slices that the list has, whole, unique and as long as it says, by name.

    Raises:
        FsrError: the list knows none of them.
    """
    tracks: dict[str, Track] = {}
    same: dict[str, str] = {}
    files = first_slices(root, findings)
    names = Counter(composed(p.stem) for p in files)
    if not any(name in clips for name in names):
        raise FsrError(f"data set {NAME} {root}", "is another data set: none of "
                       f"{len(names):,} clips is in its {INFO}",
                       f"put the authors' {INFO} and clips there", code=2)
    for path in progress(files, desc="reading clips", unit="clip"):
        name = composed(path.stem)
        if names[name] > 1:
            findings.add("clip in two slices", name)
        elif name not in clips:
            findings.add("clip that the list does not know", name)
        else:
            sha256 = file_digest(path)
            if sha256 in same:
                findings.add("same file as another clip", f"{name} and {same[sha256]}")
            elif _lasts(path, clips[name], findings):
                same[sha256] = name
                tracks[name] = Track(clips[name], path.relative_to(root).as_posix(), sha256)
    return list(tracks.values())


def _lasts(path: Path, clip: Clip, findings: Findings) -> bool:
    """Whether a clip is whole, and lasts at least half as long as the list says."""
    try:
        seconds = duration(path)
    except FsrError as error:
        findings.add(error.cause, clip.name)
        return False
    if seconds < clip.seconds / 2:
        findings.add("much shorter than the list says",
                     f"{clip.name}: {seconds:.1f} s of {clip.seconds:.1f} s")
        return False
    return True


def _track_quality(measure: Quality, root: Path, path: str) -> float:
    """Mean quality of a track's first ten 20th frames."""
    values = [measure.score(image) for _, image in islice(frames(root / path, STEP), IMAGES)]
    if len(values) < IMAGES:
        raise FsrError(f"clip {path}", f"too short for {IMAGES} images, one every {STEP} frames")
    return float(np.mean(values))


def rank(tracks: Sequence[Track], values: Sequence[Measured], better: int, threshold: float | None,
         findings: Findings) -> list[Track]:
    """Tracks from the best on, of equal ones by name; those without a value, or worse than a
    threshold, are left out."""
    ranked = []
    for track, one in zip(tracks, values):
        if one.error:
            findings.add(one.error, track.clip.name)
        elif threshold is not None and one.value * better < threshold * better:
            findings.add("below the threshold", track.clip.name)
        else:
            ranked.append(replace(track, quality=one.value))
    return sorted(ranked, key=lambda t: (-t.quality * better, t.clip.name))


def pick_frames(path: Path, store: Store) -> list[Frame]:
    """The first ten 20th frames of a track that show a face and differ from each other, kept in the
    store.

    Raises:
        FsrError: it has fewer.
    """
    taken: list[Frame] = []
    looks: list[Look] = []
    for number, image in frames(path, STEP):
        aligned = align(image, _LOOK)
        if aligned is None:
            continue
        now = look(aligned[0])
        if looks and near_duplicates([now], looks).any():
            continue
        looks.append(now)
        taken.append(Frame(number, store.put_image(image), now.signature))
        if len(taken) == IMAGES:
            return taken
    raise FsrError(f"clip {path.name}", f"fewer than {IMAGES} frames that show a face and differ")


def _pick(root: Path, store: Store, track: Track) -> list[Frame] | str:
    try:
        return pick_frames(root / track.path, store)
    except FsrError as error:
        if error.blames_weights:
            raise
        return error.cause


def _frames_key(track: Track) -> str:
    made = f"{preparation_digest()}|{code_digest('fsrbench.engine.copies')}"
    return digest(f"frames|{made}|{STEP}|{IMAGES}|{track.sha256}".encode())


def _known_frames(store: Store) -> dict[str, list[Frame] | str]:
    """What earlier runs took of clips, or why they took nothing, by key; not where an image is
    lost."""
    known: dict[str, list[Frame] | str] = {}
    taken: dict[str, dict[int, Frame]] = {}
    for row in store.read("frames").sort_values(["key", "frame"]).to_dict("records"):
        if row["error"]:
            known[row["key"]] = row["error"]
        else:
            frame = Frame(row["frame"], row["image"], np.asarray(row["signature"], dtype=np.int8))
            taken.setdefault(row["key"], {})[frame.number] = frame
    whole = {key: list(of.values()) for key, of in taken.items()
             if all(store.holds(f.image) for f in of.values())}
    return known | whole


def _rows(key: str, found: list[Frame] | str) -> list[dict]:
    if isinstance(found, str):
        return [{"key": key, "frame": -1, "image": "", "signature": [], "error": found}]
    return [{"key": key, "frame": f.number, "image": f.image, "signature": f.signature.tolist(),
             "error": ""} for f in found]


def picked(tracks: Sequence[Track], root: Path, store: Store,
           known: dict[str, list[Frame] | str]) -> Iterator[tuple[Track, list[Frame] | str]]:
    """Each track with its frames, or why there are none; taken once, kept in the store and added to
    what is known."""
    todo = [t for t in tracks if _frames_key(t) not in known]
    for track, found in zip(todo, pooled(partial(_pick, root, store), todo, few=8, batch=1)):
        known[_frames_key(track)] = found
        store.append("frames", _rows(_frames_key(track), found))
    yield from ((track, known[_frames_key(track)]) for track in tracks)


def select(ranked: Sequence[Track], root: Path, store: Store, most: int,
           findings: Findings) -> dict[str, list[Frame]]:
    """Frames of the best tracks by name, as many tracks as wanted where there are so many."""
    chosen: dict[str, list[Frame]] = {}
    shown: dict[str, list[np.ndarray]] = {}
    known, at = _known_frames(store), 0
    with progress(total=min(most, len(ranked)), desc="taking frames", unit="track") as bar:
        while len(chosen) < most and at < len(ranked):
            batch = ranked[at:at + min(64, most - len(chosen))]
            at += len(batch)
            for track, found in picked(batch, root, store, known):
                if isinstance(found, str):
                    findings.add(found, track.clip.name)
                elif _seen(found, shown.setdefault(track.clip.video, [])):
                    findings.add("shows what a better track of its video shows", track.clip.name)
                else:
                    chosen[track.clip.name] = found
                    bar.update()
    return chosen


def _seen(found: list[Frame], shown: list[np.ndarray]) -> bool:
    """Whether a frame copies one of an earlier track of the same video; else they are now shown
    too."""
    codes = np.stack([f.signature for f in found])
    if shown and signature_distances(codes, np.concatenate(shown)).min() <= DUPLICATE:
        return True
    shown.append(codes)
    return False


def entries_of(chosen: dict[str, list[Frame]], store: Store) -> list[Entry]:
    """Entries of the frames in the store, by id; an image's name is its frame's number."""
    entries = []
    for name, taken in chosen.items():
        for frame in taken:
            path = store.image_path(frame.image).relative_to(store.root).as_posix()
            entries.append(Entry(name, f"{frame.number:06d}.png", path,
                                 digest(encode_ppm(store.image(frame.image)))))
    return sorted(entries, key=lambda e: e.id)


def prepare(root: Path, choice: Choice, store: Store, most: int = PAPER.people) -> Plan:
    """Check the clips, rank them, and take their frames."""
    measure, findings = get_quality(choice.quality or "hyperiqa"), Findings()
    clips, name, seed = read_list(root / INFO, findings), measure.id, choice.seed or 0
    tracks = on_disk(root, clips, findings)
    keys = [digest(f"{name}|track|{STEP}|{IMAGES}|{t.sha256}".encode()) for t in tracks]
    values = measured(partial(_track_quality, measure, root), keys, [(t.path,) for t in tracks],
                      store, f"{measure.name} of clips", many=measure.pooled, chunk=32)
    ranked = rank(tracks, values, measure.better, choice.threshold, findings)
    chosen = select(ranked, root, store, most, findings)
    entries = entries_of(chosen, store)
    worst = next((t.quality for t in reversed(ranked) if t.clip.name in chosen), None)
    rule = (f"the best {len(chosen):,} of {len(tracks):,} tracks by the mean {name} of {IMAGES} "
            f"frames, each with {IMAGES} "
            f"frames at least {STEP} apart")
    facts = {"quality": name, "threshold": choice.threshold, "worst_taken": worst, "seed": seed,
             "step": STEP, "decoder": _decoder()}
    return Plan(entries, halved(entries, seed), rule, facts, Count(len(tracks), 0, "tracks"),
                PUBLISHED, PAPER, findings)


def _decoder() -> str:
    import av

    return f"av-{av.__version__}"


def read_frame(root: Path, path: str) -> bytes:
    """A frame in the store as PPM, whose bytes the pixels alone decide."""
    return encode_ppm(load(root / path))


SOURCE = Source(NAME, Path(), (), read=read_frame, frozen="store",
                licence="CelebV-Text, Yu et al. 2023; videos from the web, non-commercial research")


@dataset(NAME,
         "CelebV-Text, mp4 clips and their JSON: celebv-text:PATH after `invoke prepare "
         "celebv-text`", prepare)
def celebv_text(argument: str) -> Source:
    """CelebV-Text's frames in the store, taken from the clips below a folder."""
    if not argument:
        raise FsrError(f"data set {NAME}", "is not in any package",
                       "fetch it from its authors, run "
                       f"`invoke prepare {NAME} --root PATH`, and write --data {NAME}:PATH", code=2)
    return replace(SOURCE, root=Path(argument).expanduser())
