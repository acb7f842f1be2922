"""Makes calls with Fastly's official client, which knows nothing of Atoll but a host and a token.

Usage: FASTLY_API_TOKEN=TOKEN fastly_client.py HOST, with calls on stdin as JSON: [["purge_tag", {"service_id": "default",
"surrogate_key": "a"}], ...]. Prints what each came to as a JSON list; a refusal is {"raised", "status", "body"}.
"""

import json
import sys

import fastly
from fastly.api.purge_api import PurgeApi
from fastly.model.purge_response import PurgeResponse


def call(api, name, arguments):
    # The client's own name for the body of a batch.
    if "purge_response" in arguments:
        arguments["purge_response"] = PurgeResponse(**arguments["purge_response"])
    try:
        return getattr(api, name)(**arguments).to_dict()
    except fastly.ApiException as refusal:
        return {"raised": type(refusal).__name__, "status": refusal.status, "body": json.loads(refusal.body)}


configuration = fastly.Configuration(host=sys.argv[1])
with fastly.ApiClient(configuration) as client:
    json.dump([call(PurgeApi(client), name, arguments) for name, arguments in json.load(sys.stdin)], sys.stdout)
