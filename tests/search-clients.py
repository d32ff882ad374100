"""Asks a server for embeddings and ranks with the clients of OpenAI, the Hub and LlamaIndex."""

import asyncio
import sys

import numpy
import openai
from huggingface_hub import AsyncInferenceClient, InferenceClient
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

url, model, reranker = sys.argv[1:]
texts = ["The cat sat on the mat.", "A feline rested on a rug.", "Stock prices fell today."]


def main():
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    vectors = embeddings(client)
    tokens(client, vectors)
    refusals(client)
    hub(vectors)
    llama_index(vectors)
    print("clients of Python are well")


def near(got, want):
    got, want = numpy.array(got), numpy.array(want)
    assert got.shape == want.shape and numpy.abs(got - want).max() < 1e-5, (got, want)


def embeddings(client):
    # Without a format, the client asks for base64.
    coded = client.embeddings.create(model=model, input=texts)
    vectors = [entry.embedding for entry in coded.data]
    assert [entry.index for entry in coded.data] == [0, 1, 2]
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    near([entry.embedding for entry in floats.data], vectors)
    assert coded.usage == floats.usage and coded.usage.prompt_tokens > len(texts)
    near(client.embeddings.create(model=model, input=texts[0]).data[0].embedding, vectors[0])
    assert numpy.dot(vectors[0], vectors[1]) > numpy.dot(vectors[0], vectors[2]) + 0.3
    few = client.embeddings.create(model=model, input=texts[0], dimensions=64).data[0].embedding
    first = numpy.array(vectors[0][:64])
    near(few, first / numpy.linalg.norm(first))
    return vectors


def tokens(client, vectors):
    # "[CLS] the cat sat on the mat . [SEP]"
    ids = [101, 1996, 4937, 2938, 2006, 1996, 13523, 1012, 102]
    for given in [ids, [ids, ids]]:
        for entry in client.embeddings.create(model=model, input=given).data:
            near(entry.embedding, vectors[0])


def refusals(client):
    for refused, status in [
        (dict(model="nobody/nothing", input="a"), 404),
        (dict(model=reranker, input="a"), 422),
        (dict(model=model, input=""), 400),
        (dict(model=model, input="a", dimensions=100_000), 400),
        (dict(model=model, input="word " * 1000), 400),
    ]:
        try:
            client.embeddings.create(**refused)
            raise AssertionError(refused)
        except openai.APIStatusError as error:
            assert error.status_code == status and error.message, error


def hub(vectors):
    for address in [url, url + "/embed"]:
        client = InferenceClient(model=address, token="none")
        near(client.feature_extraction(texts[0]), vectors[0:1])
        near(client.feature_extraction(texts, normalize=True, truncate=True), vectors)
    client = InferenceClient(model=url, token="none")
    scores = client.sentence_similarity(texts[0], other_sentences=texts[1:])
    near(scores, [numpy.dot(vectors[0], vector) for vector in vectors[1:]])
    later = AsyncInferenceClient(model=url, token="none")
    near(asyncio.run(later.feature_extraction(texts)), vectors)


def llama_index(vectors):
    embedder = TextEmbeddingsInference(model_name=model, base_url=url, text_instruction=" ", query_instruction=" ")
    near(embedder.get_text_embedding_batch(texts), vectors)
    near(embedder.get_query_embedding(texts[0]), vectors[0])
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
    ranker = TextEmbeddingInference(model_name=reranker, base_url=url, top_n=2)
    ranked = ranker.postprocess_nodes(nodes, QueryBundle("Where is the cat?"))
    assert len(ranked) == 2 and ranked[0].score >= ranked[1].score, ranked


main()
