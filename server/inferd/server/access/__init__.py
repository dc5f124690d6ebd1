"""Who calls, and what a caller may do: one rule book for every edge. It knows no protocol and no transport.

rules           AccessRules: admit, authorize      method_rules   what every RPC, route and page needs, as data
caller          who calls                          grants         scopes and patterns of models
authority       from credentials to the caller     locality       whether a caller is on this machine
static_tokens   bearer tokens of a file            jwt_tokens     signed tokens
signed_tokens   signed tokens at a bounded cost    attempts       failed signatures of one address
client_limits   rate and concurrency of a client   audit          the log of operators' actions
tls             certificates of the ports          file_watch     files that change while the server runs
"""
