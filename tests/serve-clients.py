"""Asks a server with the official clients of OpenAI and Anthropic."""

import json
import sys

import anthropic
import openai

url, model = sys.argv[1:]
asked = [{"role": "user", "content": "What is the capital of France?"}]
answer = "The capital of France is Paris."
parameters = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


def main():
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    models(client)
    chat(client)
    structured(client)
    tools(client)
    completions(client)
    responses(client)
    refusals(client)
    messages(anthropic.Anthropic(base_url=url, api_key="none", max_retries=0))


def models(client):
    assert [entry.id for entry in client.models.list()] == [model]
    assert client.models.retrieve(model).owned_by == "workspace"


def chat(client):
    whole = client.chat.completions.create(
        model=model, messages=asked, temperature=0, logprobs=True, top_logprobs=2
    )
    choice = whole.choices[0]
    assert (choice.message.content, choice.finish_reason) == (answer, "stop"), choice
    assert choice.logprobs.content[0].token == "The"
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(
        model=model,
        messages=asked,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer, text
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    seeded = [
        client.chat.completions.create(model=model, messages=asked, seed=7, temperature=1.2, n=2)
        for _ in range(2)
    ]
    texts = [[choice.message.content for choice in one.choices] for one in seeded]
    assert texts[0] == texts[1], texts


def structured(client):
    schema = {"name": "place", "schema": parameters, "strict": True}
    whole = client.chat.completions.create(
        model=model,
        messages=asked,
        max_tokens=60,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert list(json.loads(whole.choices[0].message.content)) == ["city"]


def tools(client):
    """A loop of an agent: a call, what it gives, an answer in the form that all of it asks for."""
    function = {"name": "weather", "parameters": parameters, "strict": True}
    tool = {"type": "function", "function": function}
    conversation = [{"role": "user", "content": "How is the weather in Paris?"}]
    report = {
        "type": "object",
        "properties": {"sky": {"enum": ["sunny", "cloudy"]}},
        "required": ["sky"],
        "additionalProperties": False,
    }
    schema = {"name": "report", "schema": report, "strict": True}
    options = {"model": model, "max_tokens": 60, "temperature": 0, "tools": [tool]}
    options["response_format"] = {"type": "json_schema", "json_schema": schema}
    called = client.chat.completions.create(
        messages=conversation, tool_choice="required", **options
    )
    message = called.choices[0].message
    assert called.choices[0].finish_reason == "tool_calls"
    call = message.tool_calls[0]
    assert list(json.loads(call.function.arguments)) == ["city"]
    conversation += [message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
    # So small a model would call again.
    told = client.chat.completions.create(messages=conversation, tool_choice="none", **options)
    assert told.choices[0].finish_reason == "stop"
    assert list(json.loads(told.choices[0].message.content)) == ["sky"]


def completions(client):
    whole = client.completions.create(
        model=model, prompt=["Once upon a time", "In the end"], max_tokens=4, n=2, logprobs=1
    )
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert len(whole.choices[0].logprobs.tokens) == 4


def responses(client):
    whole = client.responses.create(model=model, input=asked[0]["content"], temperature=0)
    assert (whole.output_text, whole.status) == (answer, "completed"), whole
    said = [{"role": "user", "content": asked[0]["content"]}, *whole.output]
    more = {"role": "user", "content": "And of Italy?"}
    again = client.responses.create(model=model, input=[*said, more], temperature=0)
    assert again.usage.input_tokens > whole.usage.input_tokens, again
    with client.responses.stream(model=model, input=asked[0]["content"], temperature=0) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == answer
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds


def refusals(client):
    def refused(kind, **options):
        try:
            client.chat.completions.create(**{"model": model, "messages": asked, **options})
        except kind as e:
            return e.body
        raise AssertionError(options)

    assert refused(openai.NotFoundError, model="none")["code"] == "model_not_found"
    assert refused(openai.BadRequestError, extra_body={"foo": 1})["param"] == "foo"
    assert refused(openai.BadRequestError, top_p=2)["param"] == "top_p"
    assert refused(openai.BadRequestError, messages=[{"role": "user", "content": "a " * 9000}])


def messages(client):
    options = {"model": model, "max_tokens": 60, "messages": asked}
    options["extra_body"] = {"temperature": 0}
    whole = client.messages.create(**options)
    assert (whole.content[0].text, whole.stop_reason) == (answer, "end_turn"), whole
    with client.messages.stream(**options) as stream:
        assert stream.get_final_text() == answer
    counted = client.messages.count_tokens(model=model, messages=asked)
    cached = whole.usage.cache_read_input_tokens
    assert counted.input_tokens == whole.usage.input_tokens + cached
    tool = {"name": "weather", "input_schema": parameters}
    called = client.messages.create(tools=[tool], tool_choice={"type": "any"}, **options)
    assert called.stop_reason == "tool_use" and list(called.content[0].input) == ["city"]
    try:
        client.messages.create(**{**options, "model": "none"})
    except anthropic.NotFoundError as e:
        assert e.body["error"]["type"] == "not_found_error"
    else:
        raise AssertionError("a model that is not there")


main()
