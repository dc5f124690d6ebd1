"""Who calls and what they may do: no protocol, no transport. The edges ask, and say the answer in their own words.

grants          scopes and patterns of models
identity        who a caller is
static_tokens   bearer tokens of a file         jwt_tokens    signed ones
signed_tokens   those at a bounded price        attempts      failures that an address has, within a bucket
authority       from a call to its identity     file_watch    files that change while the server runs
"""
