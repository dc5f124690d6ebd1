"""Bad signatures: each token is verified once, failures of one address are bounded, callers who were valid before are
not affected."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.security import AUDIENCE, ISSUER, OTHER_SECRET, Call, Keys

from inferd.server.access.attempts import BURST, RATE, Attempts
from inferd.server.access.authority import Authority
from inferd.server.access.caller import Caller
from inferd.server.access.client_limits import Limiter
from inferd.server.access.file_watch import FileWatch
from inferd.server.access.grants import Grants
from inferd.server.access.jwt_tokens import JwtTokens
from inferd.server.access.rate_bucket import RateBucket
from inferd.server.access.rules import AccessRules
from inferd.server.access.signed_tokens import MEMORY
from inferd.server.config.schema import Admin, Auth, Clients
from inferd.server.errors import Unauthenticated

MANY = "too many came"
HERE = "ipv4:10.0.0.1:5"
THERE = "ipv4:10.0.0.2:5"


class Server:
    """An authority with a clock that the test moves; `verified` counts verified signatures."""

    def __init__(self, file: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.verified = 0
        self.keys = keys
        self.file = keys.write(file)
        self.files = FileWatch(3600)
        settings = {"jwks_file": str(file), "issuer": ISSUER, "audience": AUDIENCE}
        self.authority = Authority(Auth.model_validate({"jwt": settings}), lambda: self.now)
        self.authority.watch(self.files)
        real = jwt.decode

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.verified += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(jwt, "decode", counted)
        self._names = iter(range(10**9))

    def bad(self) -> str:
        """A new token, in which only the signature is wrong."""
        return self.keys.token(key=OTHER_SECRET, sub=f"stranger-{next(self._names)}")

    def call(self, token: str, peer: str = HERE) -> Caller:
        return self.authority.identify(Call(f"Bearer {token}", peer=peer))

    def refusal(self, token: str, peer: str = HERE) -> str:
        with pytest.raises(Unauthenticated, match=r"^expected") as caught:
            self.call(token, peer)
        return str(caught.value)

    def use_up(self, peer: str = HERE) -> None:
        """Uses up the failures that one address may have at once."""
        for _ in range(BURST):
            assert "another signature" in self.refusal(self.bad(), peer)


@pytest.fixture
def server(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path / "jwks.json", keys, monkeypatch)


def test_a_failed_token_is_verified_again_only_after_a_while(server: Server):
    bad = server.bad()
    told = {server.refusal(bad, f"ipv4:10.0.0.{number}:1") for number in range(100)}
    assert server.verified == 1
    assert len(told) == 1
    server.now = MEMORY
    server.refusal(bad)
    assert server.verified == 2


def test_a_refusal_is_forgotten_with_the_keys(server: Server, keys: Keys):
    bad = server.bad()
    server.refusal(bad)
    server.refusal(bad)
    assert server.verified == 1
    keys.write(server.file, "hs", "es")
    server.files.look()
    server.refusal(bad)
    assert server.verified == 2


def test_failures_of_one_address_are_bounded(server: Server):
    server.use_up()
    assert server.verified == BURST
    for _ in range(100):
        assert MANY in server.refusal(server.bad())
    assert MANY in server.refusal(
        server.keys.token()
    )  # valid, but not seen before: without a look it cannot be told from the bad ones
    assert server.verified == BURST
    assert server.call(server.keys.token(sub="a"), THERE).name == "jwt:a"  # another address has failures of its own
    server.now = 1.0
    for _ in range(int(RATE)):
        assert "another signature" in server.refusal(server.bad())
    assert MANY in server.refusal(server.bad())
    server.now = 2.0
    assert server.call(server.keys.token(sub="b")).name == "jwt:b"


def test_valid_tokens_do_not_count_as_failures(server: Server):
    for number in range(2 * BURST):
        assert server.call(server.keys.token(sub=f"user-{number}"))
    server.use_up()


def test_a_once_valid_token_is_not_locked_out_by_failures_of_others(server: Server, keys: Keys):
    good = keys.token("es")
    server.call(good)
    server.use_up()
    assert server.call(good)
    keys.write(server.file, "es", "rs")  # new keys: the token must be verified again
    server.files.look()
    before = server.verified
    assert server.call(good)
    assert server.verified == before + 1
    assert MANY in server.refusal(keys.token("es", sub="somebody else"))


def test_a_token_that_is_no_longer_valid_counts_as_a_failure(server: Server, keys: Keys):
    good = keys.token("es")
    server.call(good)
    server.use_up()
    Keys().write(server.file, "es")
    server.files.look()
    assert "another signature" in server.refusal(good)
    server.now = MEMORY
    for number in range(BURST):
        server.refusal(keys.token("es", sub=str(number)))
    assert MANY in server.refusal(good)


@pytest.mark.parametrize(
    "claims", [{"exp": 1000}, {"exp": None}, {"aud": "x"}, {"aud": [7]}, {"iss": "x"}, {"nbf": 2**35}, {"iat": "x"}]
)
def test_wrong_claims_are_refused_before_the_signature_is_verified(server: Server, keys: Keys, claims: dict[str, Any]):
    for _ in range(2 * BURST):
        assert MANY not in server.refusal(keys.token(key=OTHER_SECRET, **claims))
    assert server.verified == 0
    assert server.call(keys.token())


@pytest.mark.parametrize(
    "head", [{"alg": "none"}, {"alg": "HS256", "kid": "nobody"}, {"alg": "RS256", "kid": "hs"}, []]
)
def test_an_unusable_header_is_refused_before_the_signature_is_verified(server: Server, keys: Keys, head: Any):
    text = base64.urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip("=")
    for _ in range(2 * BURST):
        server.refusal(".".join([text, *server.bad().split(".")[1:]]))
    assert server.verified == 0


def test_limits_of_clients_do_not_verify_a_token_twice(server: Server):
    rules = AccessRules(Admin(), server.authority, Limiter(Clients(rate=1000.0)))
    bad, good = Call(f"Bearer {server.bad()}"), Call(f"Bearer {server.keys.token()}")
    assert rules.client(bad) == "address 10.0.0.1"
    with pytest.raises(Unauthenticated, match="another signature"):
        server.authority.identify(bad)
    assert server.verified == 1
    assert rules.client(good) == server.authority.identify(good).name == "jwt:user-1"
    assert server.verified == 2


claim = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(ISSUER), st.just(AUDIENCE),
    st.lists(st.one_of(st.just(AUDIENCE), st.integers(), st.text(max_size=5)), max_size=3), st.just("9" * 5000),
    st.integers(1_500_000_000, 4_000_000_000), st.integers(1_500_000_000, 4_000_000_000).map(str),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokens(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> JwtTokens:
    file = keys.write(tmp_path_factory.mktemp("jwks") / "jwks.json")
    settings = Auth.model_validate({"jwt": {"jwks_file": str(file), "issuer": ISSUER, "audience": AUDIENCE}}).jwt
    assert settings is not None
    return JwtTokens(settings, Grants)


@example({"aud": ["another", AUDIENCE]})
@example({"exp": "4000000000", "iat": "1500000000", "nbf": True})
@example({"exp": 4e9, "iat": 1.5e9, "nbf": False})
@given(st.dictionaries(st.sampled_from(["exp", "iss", "aud", "sub", "nbf", "iat"]), claim, max_size=3))
def test_the_early_check_refuses_only_tokens_that_fail_verification(
    tokens: JwtTokens, keys: Keys, claims: dict[str, Any]
):
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "a", "exp": 2**33} | claims
    token = jwt.PyJWS().encode(json.dumps(whole).encode(), keys.signing["hs"][0], "HS256", headers={"kid": "hs"})
    key = tokens.look(keys.token("hs"))
    try:
        tokens.verify(token, key)
    except Unauthenticated:
        return
    assert tokens.look(token) is key


def test_memory_of_failed_tokens_and_addresses_is_bounded(server: Server):
    attempts = Attempts(lambda: 0.0)
    who = Caller("a", Grants((), ()))
    for number in range(20_000):
        attempts.verified(number.to_bytes(8), Call(peer=f"ipv4:address {number}:1"), lambda: who)
    assert len(attempts._buckets) <= 8192
    assert len(attempts._good) <= 8192


def test_a_rate_bucket_never_holds_more_than_its_burst():
    bucket = RateBucket(2.0, 1, 0.0)
    bucket.give_back()
    assert bucket.take(0.0) == 0.0
    assert bucket.take(0.25) == pytest.approx(0.25)
    assert bucket.take(0.5) == 0.0
    assert bucket.take(100.0) == 0.0
    assert bucket.take(100.0) == pytest.approx(0.5)
