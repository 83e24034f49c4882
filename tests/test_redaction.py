"""What is shown of texts that hold secrets."""

import base64

import pytest

from temper.network.redaction import forms, redacted, secrets_of

KEY = "sekret>>>???~~~key-310"  # its Base64 has `+`, `/` and padding
SECRETS = forms(KEY, "adam-secretname")
PAIR = f"adam-secretname:{KEY}".encode()


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "sekret%3E%3E%3E%3F%3F%3F~~~key-310",
        base64.b64encode(PAIR).decode(),
        base64.b64encode(PAIR).decode().rstrip("="),
        base64.urlsafe_b64encode(PAIR).decode(),
        base64.urlsafe_b64encode(PAIR).decode().rstrip("="),
    ],
)
@pytest.mark.parametrize("text", ["{}", "received '{}', expected", "a{}b", '{{"header": ["Basic {}"]}}'])
def test_a_key_is_masked_in_every_form(text: str, secret: str) -> None:
    assert redacted(text.format(secret), SECRETS) == text.format("***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/a?b=1", "https://***@host/a?b=1"),
        ("https://me:p@w@host/a", "https://***@host/a"),
        ("https://host/a@b", "https://host/a@b"),
        ("see http://token@host, or http://host", "see http://***@host, or http://host"),
        ("https://h/a?token=abc&x=1", "https://h/a?token=***&x=1"),
        ("https://h/a?id=7&Access_Token=abc", "https://h/a?id=7&Access_Token=***"),
        (
            "https://h/a?X-Amz-Date=1&X-Amz-Credential=A%2Fb&X-Amz-Signature=5f&X-Amz-Security-Token=x",
            "https://h/a?X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        (
            "https://h/a?GoogleAccessId=a&Expires=9&Signature=b",
            "https://h/a?GoogleAccessId=***&Expires=9&Signature=***",
        ),
        ("https://h/a?sv=2020&sig=a%3D", "https://h/a?sv=2020&sig=***"),
        ("https://h/a?api_key=1&apikey=2&key=3", "https://h/a?api_key=***&apikey=***&key=***"),
        ("https://h/a?AWSAccessKeyId=1&password=2", "https://h/a?AWSAccessKeyId=***&password=***"),
        ("https://h/a?size=large&page=2&monkey=3&design=4", "https://h/a?size=large&page=2&monkey=3&design=4"),
        ("Authorization: Basic YTpi", "Authorization: Basic ***"),
        ("{'authorization': 'Bearer abc', 'x': 1}", "{'authorization': 'Bearer ***', 'x': 1}"),
        ("expected a key, received none", "expected a key, received none"),
    ],
)
def test_secrets_of_addresses_and_headers_are_masked_without_being_known(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_short_or_missing_keys_mask_no_words() -> None:
    assert forms(None) == forms("") == set()
    assert redacted("a table", forms("a", "me")) == "a table"
    assert redacted("Basic bWU6YQ==", forms("a", "me")) == "Basic ***"


def test_the_header_that_an_address_is_sent_with_is_known() -> None:
    assert redacted("bWU6cCB3", secrets_of("https://me:p%20w@host/a")) == "***"
    assert secrets_of("https://host/a") == secrets_of("http://[::1") == set()
