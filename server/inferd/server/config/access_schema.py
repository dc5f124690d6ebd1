"""Settings for authentication, authorization and limits of callers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from inferd.server.config.fields import Count, Interval, Section, Text, Texts, distinct, one_is_a_list
from inferd.server.config.units import Seconds

ScopeName = Literal["predict", "metadata", "admin"]
Scopes = Annotated[tuple[ScopeName, ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)]
Opened = Annotated[
    tuple[Literal["health", "metrics", "reflection"], ...], BeforeValidator(one_is_a_list), AfterValidator(distinct)
]


class Granted(Section):
    """Scopes, and the models that they are for."""

    scopes: Scopes = ()
    """predict; metadata: see what is served; admin: load, unload, label, roll back (includes metadata)."""
    models: Texts = ("*",)
    """Patterns of model names, as in a shell: "*", "fraud-*", "digits"."""


class Jwt(Section):
    """JSON web tokens (JWT). The key that a token names decides on the algorithm: HS256, RS256 or ES256."""

    jwks_file: Text
    """File with the key set (JWKS). It is read again when it changes."""
    issuer: Text
    """A token's `iss` must be this."""
    audience: Texts
    """A token's `aud` must contain one of these."""
    leeway: Seconds = 30.0
    """By how much clocks may differ when `exp`, `nbf` and `iat` are checked."""
    scopes_claim: Text = "scope"
    """The claim with the scopes: a list, or text separated by spaces. Words that are no scopes are ignored."""
    models_claim: Text = "models"
    """The claim with patterns of model names: a list, or one text. A token without it is good for all models."""


class Auth(Section):
    """Who may call. Everybody, unless tokens_file, jwt or certificates is set."""

    tokens_file: Text | None = None
    """YAML file of bearer tokens, each `name: {sha256, scopes, models, expires}`. It is read again when it changes."""
    jwt: Jwt | None = None
    """null: none are accepted."""
    certificates: dict[Text, Granted] = Field(default_factory=dict)
    """By common name or alternative name of a client's certificate: its `scopes` and `models`. Needs tls.client_ca."""
    anonymous: Granted = Granted()
    """What callers without credentials may do, if credentials are configured."""
    open: Opened = ("health",)
    """What needs no credentials: health (of the server, not of models), metrics, reflection (and /docs)."""
    poll: Interval = 1.0
    """Time between two checks of the files with tokens, keys and certificates."""

    @property
    def enabled(self) -> bool:
        """Whether any kind of credentials is configured."""
        return self.tokens_file is not None or self.jwt is not None or bool(self.certificates)


class Clients(Section):
    """Bounds for each client: each identity, or each address where there are no credentials. Health is not counted."""

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Requests per second; messages of streams count, too. null: no bound."""
    burst: Count | None = None
    """Requests at once after a pause. null: as many as in one second."""
    concurrency: Count | None = None
    """Requests and streams at the same time. null: no bound."""

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("expected a rate with the burst, got none")
        return self

    @property
    def enabled(self) -> bool:
        """Whether any bound is set."""
        return self.rate is not None or self.concurrency is not None


class Limits(Section):
    """Limits on callers."""

    clients: Clients = Clients()
