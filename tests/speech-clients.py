"""Asks a server for transcriptions with OpenAI's official client, in all formats.

    tests/speech-clients.py URL MODEL AUDIO [WORDS]    WORDS are what the text has to have
"""

import sys

import openai

url, model, path = sys.argv[1:4]
words = sys.argv[4] if len(sys.argv) > 4 else ""
# Recordings without a voice are heard too.
options = {"model": model, "extra_body": {"vad_filter": not words == ""}}


def audio():
    return open(path, "rb")


def main():
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    formats(client.audio.transcriptions)
    stream(client.audio.transcriptions)
    refusals(client)


def formats(route):
    plain = route.create(file=audio(), **options)
    assert words in plain.text and plain.usage.type == "duration", plain
    text = route.create(file=audio(), response_format="text", **options)
    assert text.strip() == plain.text, text
    subtitles = route.create(file=audio(), response_format="srt", **options)
    assert subtitles.startswith("1\n00:00:0"), subtitles
    assert route.create(file=audio(), response_format="vtt", **options).startswith("WEBVTT\n\n")
    verbose = route.create(
        file=audio(),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        prompt="Mr. President,",
        language="en",
        temperature=0,
        **options,
    )
    assert (verbose.language, verbose.duration > 1) == ("english", True), verbose
    assert verbose.segments[0].end > verbose.segments[0].start, verbose.segments
    assert not words or verbose.words[0].word.isalpha(), verbose.words
    alone = route.create(file=audio(), response_format="verbose_json", **options)
    assert alone.words is None and alone.segments, alone


def stream(route):
    events = list(route.create(file=audio(), stream=True, **options))
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done", events
    assert events[-1].text == deltas and words in deltas, events


def refusals(client):
    for kind, more in [
        (openai.BadRequestError, {"response_format": "diarized_json"}),
        (openai.BadRequestError, {"language": "klingon"}),
        (openai.BadRequestError, {"stream": True, "response_format": "text", "include": ["logprobs"]}),
        (openai.NotFoundError, {"model": "nobody"}),
    ]:
        try:
            client.audio.transcriptions.create(**{"file": audio(), "model": model} | more)
        except kind as error:
            assert error.body["message"], error
        else:
            raise AssertionError(more)
    for file in [b"", b"no audio at all"]:
        try:
            client.audio.transcriptions.create(file=("a.wav", file), model=model)
        except openai.BadRequestError as error:
            assert error.body["param"] == "file", error.body
        else:
            raise AssertionError(file)


main()
