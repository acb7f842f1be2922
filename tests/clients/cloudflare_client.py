"""Makes calls with Cloudflare's official client, which knows nothing of Atoll but a base URL and a token.

Usage: CLOUDFLARE_API_TOKEN=TOKEN cloudflare_client.py BASE_URL, with calls on stdin as JSON: [["cache.purge", {"zone_id":
"default", "tags": ["a"]}], ...]. With CLOUDFLARE_EMAIL and CLOUDFLARE_API_KEY it speaks as older clients do. Prints what each
came to as a JSON list; a page of results is a list, a refusal is {"raised", "status", "body"}.
"""

import functools
import json
import sys

import cloudflare


def call(client, name, arguments):
    try:
        result = functools.reduce(getattr, name.split("."), client)(**arguments)
        if hasattr(result, "iter_pages"):
            # Asks for page after page until one is empty.
            return [each.to_dict() for each in result]
        return result.to_dict()
    except cloudflare.APIStatusError as refusal:
        return {"raised": type(refusal).__name__, "status": refusal.status_code, "body": refusal.response.json()}


client = cloudflare.Cloudflare(base_url=sys.argv[1], max_retries=0)
json.dump([call(client, name, arguments) for name, arguments in json.load(sys.stdin)], sys.stdout)
