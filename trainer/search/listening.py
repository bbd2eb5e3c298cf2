"""What a search says, as a page: the query and the best matches side by side, to be seen and heard.

One card a match, on its left the stretch of the query that agrees, on its right the recording's
(:mod:`trainer.search.stretches`): sound, waveform, piano roll. Both sides are as wide and show the
same octaves, so the same notes lie at the same place. At another tempo each side's axis has its own
seconds. An audio query has the strength of every semitone in place of a piano roll
(:mod:`trainer.search.semitones`).

Sound travels in the page, 64 kB a second, so only the first seconds of a long stretch are heard.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.base.html import (
    Html,
    Section,
    audio,
    join,
    note,
    number,
    page,
    pairs,
    table,
    tag,
    unbroken,
)
from pipeline.base.tracks import (
    clock,
    octaves_of,
    picture,
    pitch_track,
    roll_track,
    sound_track,
    time_axis,
)
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.reader import Store
from trainer.search.answers import Answer, Match
from trainer.search.queries import Query
from trainer.search.semitones import semitones
from trainer.search.stretches import Stretch, stretches

UNKNOWN_OCTAVES = (36, 96)  # where neither side has notes
FRAME_S = 0.05  # of the picture of semitones
LEAST_PERCENT = 0.001  # of false alarms that is told from less
SAME_TEMPO = 0.006
KINDS = {"audio": "sound, looked for among notes", "midi": "notes, looked for among sound"}


def listening_page(
    query: Query, answer: Answer, store: Store | None, *, most: int = 3, seconds: float = 30.0
) -> str:
    """The whole page.

    Parameters
    ----------
    store : the index's; None where it is not there any more
    most : how many matches have a card
    seconds : of either side that are seen and heard, at most

    Raises
    ------
    StoreError
        when what the store holds does not verify.
    """
    cards = [_card(query, match, store, seconds) for match in answer.matches[:most]]
    sections = []
    if answer.matches:
        sections.append(Section(title="Matches", body=_matches(answer)))
    if cards:
        sections.append(Section(title="Side by side", body=join(_how(query, seconds), *cards)))
    return page(Path(answer.query).name, _lead(answer), sections)


def _lead(answer: Answer) -> Html:
    where = None
    if not answer.matches:
        said = "nothing like it is in the index."
    elif not answer.found:
        said = "nothing agrees more than chance does."
    else:
        best = answer.matches[0]
        said = f"{best.composer}: {best.title}"
        where = _agreement(best)
    verdict = tag(
        "strong", "found:" if answer.found else "not found:",
        class_="good" if answer.found else "bad",
    )  # fmt: skip
    facts: dict[str, object] = {
        "query": answer.query,
        "what it is": f"{KINDS[answer.side]}, {clock(answer.seconds)} long",
        "searched by": answer.embedder,
        "found means": f"of queries whose music is not in the index, at most "
        f"{number(100 * answer.rate)}\u00a0% would score so high",
    }
    return join(
        tag("p", verdict, " ", said, class_="lead"),
        tag("p", where) if where else None,
        pairs(facts.items()),
    )


def _matches(answer: Answer) -> Html:
    head = (
        "rank", "composer", "title", "found", "score", "false alarms (%)", "in the query",
        "in the recording", "tempo",
    )  # fmt: skip
    rows = [
        (
            m.rank,
            m.composer,
            m.title,
            m.found,
            round(m.score, 1),
            None if m.false_alarms is None else max(LEAST_PERCENT, 100 * m.false_alarms),
            unbroken(_span(m.query_s)),
            unbroken(_span(m.recording_s)),
            round(m.tempo, 3),
        )
        for m in answer.matches
    ]
    return join(
        tag("div", table(head, rows, sortable=True), class_="matches"),
        note(
            "False alarms: how many of a hundred queries of this length, whose music is not in the "
            f"index, would score so high by chance; {LEAST_PERCENT:g} stands for less as well. Tempo: "
            "seconds of the recording that pass in one of the query."
        ),
    )


def _how(query: Query, seconds: float) -> Html:
    own = (
        "The query has no sound of its own: its notes are played on a sampled piano."
        if query.side == "midi"
        else "The query has no notes: its picture is the strength of every semitone, overtones "
        "included, on the axis of the recording's piano roll."
    )
    return note(
        "Left the query, right the recording, on the same axis of time and over the same octaves: "
        "what is the same music lies at the same place. A click into a picture plays from there. "
        f"{own} At most {number(seconds)} s of each stretch are shown."
    )


def _card(query: Query, match: Match, store: Store | None, most_s: float) -> Html:
    both = stretches(query, match, store, most_s)
    badge = tag(
        "span", "found" if match.found else "not found",
        class_=f"badge {'good' if match.found else 'bad'}",
    )  # fmt: skip
    return tag(
        "article",
        tag("h3", f"{match.rank}. {match.composer}: {match.title} ", badge),
        tag("p", _agreement(match)),
        note(_certainty(match)),
        tag("p", "No stretch of it agrees: there is nothing to hear.") if both is None else None,
        tag("p", "The store that holds the recording was moved away: only the query is shown.")
        if store is None
        else None,
        _sides(*both) if both is not None else None,
        class_="match",
        id=f"match-{match.rank}",
    )


def _sides(query: Stretch, recording: Stretch | None) -> Html:
    named = [("Query", query)] + ([("Recording", recording)] if recording else [])
    pitches = [s.notes.pitch for _, s in named if s.notes is not None]
    octaves = octaves_of(*pitches) if pitches else UNKNOWN_OCTAVES
    return tag("div", *(_side(name, s, octaves) for name, s in named), class_="sides")


def _side(name: str, shown: Stretch, octaves: tuple[int, int]) -> Html:
    seconds, samples = shown.seconds, shown.samples
    tracks = []
    if samples is not None:
        tracks.append(audio(samples.astype("<i2").tobytes(), SAMPLE_RATE))
        tracks.append(sound_track(samples, SAMPLE_RATE, seconds))
    if shown.notes is not None:
        tracks.append(roll_track(shown.notes, seconds, octaves))
    elif samples is not None:
        strength = semitones(samples, SAMPLE_RATE, octaves, max(1, round(seconds / FRAME_S)))
        drawn = picture(strength, 0, 1, x=0, width=1, height=octaves[1] - octaves[0])
        tracks.append(pitch_track("semitones", octaves, seconds, drawn))
    span = _span((shown.start_s, shown.start_s + seconds))
    return tag(
        "section",
        tag("h4", name, " ", tag("span", span)),
        tag("p", shown.remark) if shown.remark else None,
        *tracks,
        time_axis(seconds),
        class_="side" if samples is None else "side listen",  # the script wants a player
        data_seconds=None if samples is None else f"{seconds:.6f}",
    )


def _agreement(match: Match) -> str:
    tempo = "" if abs(match.tempo - 1) < SAME_TEMPO else f", at tempo × {match.tempo:.2f}"
    query, recording = _span(match.query_s), _span(match.recording_s)
    return f"{query} of the query is {recording} of the recording{tempo}."


def _certainty(match: Match) -> str:
    percent = 100 * match.false_alarms if match.false_alarms is not None else None
    if percent is None:
        chance = "the index is too small to say how often chance scores so"
    elif percent < LEAST_PERCENT:
        chance = f"by chance under {LEAST_PERCENT:g}\u00a0%"
    else:
        chance = f"by chance {number(percent, 2)}\u00a0%"
    return f"Score {match.score:.1f}, {chance}. {match.key}, {match.split}."


def _span(seconds: tuple[float, float]) -> str:
    return f"{clock(seconds[0])} – {clock(seconds[1])}"
