"""Chats on the page of a server that answers by a script."""

import re
import subprocess
import sys

from playwright.sync_api import expect, sync_playwright

browser, server, *picture = sys.argv[1:]


def main():
    script = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = script.stdout.readline().strip()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser)
        for test in [models, stream, anew, failure, stop]:
            chat = Chat(chromium, url)
            test(chat)
            chat.close(url)
            print(f"{test.__name__}: {test.__doc__}")
        chromium.close()
    script.stdin.close()
    script.wait()


class Chat:
    """The page in a tab of its own."""

    def __init__(self, chromium, url):
        self.page = chromium.new_page(viewport={"width": 900, "height": 600})
        self.page.set_default_timeout(10_000)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.errors.append(error))
        self.page.goto(url)
        self.button = self.page.locator("#send")
        self.articles = self.page.locator("article")
        self.models = self.page.locator("#model option")
        expect(self.models.first).to_be_attached()

    def ask(self, model, text):
        self.page.select_option("#model", model)
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def answered(self, text):
        """Waits for the end of an answer."""
        expect(self.button).to_have_text("Send")
        expect(self.articles.last).to_contain_text(text)

    def asked(self):
        """What was said last, by role."""
        sent = [r.post_data_json for r in self.requests if r.url.endswith("/chat/completions")]
        return [(message["role"], message["content"]) for message in sent[-1]["messages"]]

    def close(self, url):
        assert not self.errors, self.errors
        outside = [request.url for request in self.requests if not request.url.startswith(url)]
        assert not outside, outside
        self.page.close()


def models(chat):
    """lists what the server has"""
    names = [option.get_attribute("value") for option in chat.models.all()]
    assert names == ["calls", "fails", "long", "thinks", "words"], names


def stream(chat):
    """shows reasoning, the answer as it comes, and how fast it came"""
    chat.ask("long", "Go on")
    expect(chat.articles.last).to_contain_text("and so on")
    expect(chat.button).to_have_text("Stop")
    chat.button.click()
    expect(chat.button).to_have_text("Send")
    chat.ask("thinks", "What is the capital of France?")
    expect(chat.page.locator("details")).to_have_attribute("open", "")
    expect(chat.page.locator("details")).to_contain_text("Let me see: France, so Paris.")
    chat.answered("The capital of France is Paris.")
    expect(chat.page.locator("details")).not_to_have_attribute("open", "")
    expect(chat.articles.last.locator("small")).to_have_text(re.compile(r"^6 tokens, [\d.]+ tok/s$"))
    if picture:
        chat.page.locator("summary").click()
        chat.page.screenshot(path=picture[0])


def anew(chat):
    """a new chat knows nothing of the one before, even of an answer that was coming"""
    chat.ask("long", "Go on")
    expect(chat.articles.last).to_contain_text("and so on")
    chat.page.click("#anew")
    expect(chat.articles).to_have_count(0)
    chat.ask("words", "Count")
    chat.answered("One two three.")
    assert chat.asked() == [("user", "Count")], chat.asked()
    chat.ask("words", "Again")
    chat.answered("One two three.")
    expected = [("user", "Count"), ("assistant", "One two three."), ("user", "Again")]
    assert chat.asked() == expected, chat.asked()
    expect(chat.articles).to_have_count(4)


def failure(chat):
    """a question that failed can be asked again, and leaves nothing behind"""
    chat.ask("fails", "Count")
    expect(chat.page.locator("article.error")).to_have_text("model: failed")
    expect(chat.page.locator("#text")).to_have_value("Count")
    chat.page.select_option("#model", "words")
    chat.button.click()
    chat.answered("One two three.")
    assert chat.asked() == [("user", "Count")], chat.asked()


def stop(chat):
    """an answer that was stopped stays as far as it came"""
    chat.ask("long", "Go on")
    expect(chat.articles.last).to_contain_text("and so on and so on")
    chat.button.click()
    expect(chat.button).to_have_text("Send")
    chat.ask("words", "Count")
    chat.answered("One two three.")
    (first, said, last) = chat.asked()
    assert (first, last) == (("user", "Go on"), ("user", "Count"))
    assert said[0] == "assistant" and said[1].startswith("and so on and so on"), said


main()
