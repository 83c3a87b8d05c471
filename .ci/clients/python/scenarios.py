"""What the scenarios of the Python clients share: how one is run and told, names, the records, and patience.

A scenario is a function of one argument, the bootstrap address. Its name with dashes is what is said: `ok NAME`, or
`failed NAME: why`. A script ends with 1 if one failed.
"""

import inspect
import sys
import time
import traceback
import uuid

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PATIENCE = 30  # seconds that anything may take


def topic(name):
    """A topic that no other run knows."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def records(count, tag="v"):
    """Keys and values; some values are large enough that every codec has something to do."""
    return [(f"k{i}".encode(), (f"{tag}{i}-" + "x" * (i % 7) * 50).encode()) for i in range(count)]


def until(what, found):
    """Asks until there is something, and gives it."""
    ends = time.monotonic() + PATIENCE
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < ends, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)


def equal(found, expected, what=""):
    assert found == expected, f"{what} {str(found)[:200]}, expected {str(expected)[:200]}"


def run(scenarios):
    """Runs all, those that are not long (`short`), or those that are named."""
    address, chosen = sys.argv[1], sys.argv[2:]
    failed = False
    for name, scenario in scenarios:
        if chosen == ["short"] and getattr(scenario, "is_long", False):
            continue
        if chosen not in ([], ["short"]) and name not in chosen:
            continue
        try:
            began = time.monotonic()
            scenario(address)
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
            print(f"ok {name}", flush=True)
        except BaseException as error:
            failed = True
            traceback.print_exc()
            why = f"{type(error).__name__} {error}".replace("\n", " ")[:300]
            print(f"failed {name}: {why}", flush=True)
    sys.exit(1 if failed else 0)


def named(module):
    """The functions of a module that are scenarios: those of the address alone, in their order."""
    found = []
    for name, value in vars(module).items():
        code = getattr(value, "__code__", None)
        one = code and code.co_argcount == 1 and not code.co_flags & inspect.CO_VARKEYWORDS
        if one and code.co_varnames[0] == "address":
            found.append((name.replace("_", "-"), value))
    return found
