"""Has schemathesis ask for objects that are there in three of four requests with an id. DCR_TEST_IDS has their ids by the
path of the operation; the last of them are those that are deleted.

The checks `described_data_acceptance` and `described_data_rejection` are `positive_data_acceptance` and
`negative_data_rejection`, save for what no schema says."""

import collections
import itertools
import json
import os
import re

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

IDS = json.loads(os.environ["DCR_TEST_IDS"])
TURNS = collections.defaultdict(itertools.count)


@schemathesis.hook
def before_call(context, case, kwargs):
    ids = IDS.get(case.operation.path)
    if not ids:
        return
    turn = next(TURNS[case.operation.label])
    if turn % 4 == 3:
        return
    chosen = ids[-2:] if case.method == "DELETE" else ids[:-2] or ids
    case.path_parameters["id"] = chosen[turn % len(chosen)]


# The rules that no schema says, by what the messages of their errors begin with.
RULES = [
    # Several members together.
    r"expected one of client_id and default_for",
    r"subject_type: third-party clients act for users only",
    r"scope: with allow_all_scopes no scope is named",
    r"grant_types: (must include authorization_code|implicit and device_code|client_credentials)",
    r"callbacks: ",
    r"dcr_edge\.parameters: each parameter needs a name of its own",
    r"dcr_edge\.parameters\.[a-z]+: the parameter of this name means something else",
    r"rule\.action: (expected|redirect)",
    r"rule: (expected a condition|match_all excludes)",
    # Entries of one list, and lists of all objects.
    r"scopes: the scope .* stands there twice",
    r"rule: .* are the most in all rules together",
    # What is there already.
    r"scope: ",
    r"token_endpoint_auth_method: a public client has no secret",
    r"rule\.action\.redirect_uri: ",
    # Texts that are more than characters: addresses, hosts, URIs, searches, and what people can read.
    r"[a-z0-9_.]+\[\d+\]: expected an address or a CIDR range",
    r"rule\.(not_)?match\.(connecting_)?ipv[46]_cidrs: .* put it into the list for IPv",
    r"rule\.(not_)?match\.hostnames\[\d+\]: a domain is",
    r"dcr_edge\.allowed_redirect_hosts\[\d+\]: expected a host",
    r"dcr_edge\.cors_origins\[\d+\]: an origin is",
    r"callbacks\[\d+\]: ",
    r"logo_uri: ",
    r"(name|description): must have a character that can be seen",
    r"(q|search): ",
    # Bytes, where a schema counts characters.
    r"rule\.(not_)?match\.user_agents: entry \d+: expected 1 to 512 bytes",
    r"options: expected at most 16384 bytes",
]

# What a number with a fraction of 0 gets, which JSON Schema calls an integer.
FRACTION = r".*(expected a whole number|floating point)"


@schemathesis.check
def described_data_acceptance(ctx, response, case):
    if response.status_code == 400:
        message = response.json()["message"]
        if any(re.match(rule, message) for rule in RULES):
            return None
        if re.match(FRACTION, message) and re.search(r"\d\.0\b", f"{case.query} {case.body}"):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def described_data_rejection(ctx, response, case):
    # A list that is too long may make the whole body too long.
    if response.status_code == 413:
        return None
    return negative_data_rejection(ctx, response, case)
