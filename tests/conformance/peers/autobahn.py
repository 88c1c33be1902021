"""Compares what Autobahn's cases say of a server with what they say of it through the proxy.

Usage: autobahn.py DIRECT THROUGH, the folders of two reports. Prints how many cases there are, and how many are as good
through the proxy as without it.
"""

import collections
import json
import sys

# Autobahn calls all of these passed. Between OK and NON-STRICT it often depends on how the bytes were cut on their way.
PASSED = ["OK", "INFORMATIONAL", "NON-STRICT"]


def read(folder):
    with open(folder + "/index.json") as index:
        (cases,) = json.load(index).values()
    return cases


direct, through = read(sys.argv[1]), read(sys.argv[2])
passed = 0
for case, without in direct.items():
    proxied = through.get(case, {"behavior": "FAILED", "behaviorClose": "FAILED"})
    if all(proxied[part] in PASSED or proxied[part] == without[part] for part in ("behavior", "behaviorClose")):
        passed += 1
    else:
        print(f"{case}: {proxied['behavior']}, {proxied['behaviorClose']}; without the proxy "
              f"{without['behavior']}, {without['behaviorClose']}", file=sys.stderr)
for name, report in ("without the proxy", direct), ("through it", through):
    counts = collections.Counter(case["behavior"] for case in report.values())
    print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()), file=sys.stderr)
print(len(direct), passed)
