"""What Rust's test programs say, on stdin, as `ok NAME` and `failed NAME: why`."""

import re
import sys

ended = {}
reasons = {}
of = None
for line in sys.stdin:
    if found := re.match(r"test (\S+) \.\.\. (?:.*)(ok|FAILED)$", line):
        ended[found[1]] = found[2]
    elif found := re.match(r"---- (\S+) stdout ----", line):
        of = found[1]
    elif of and line.strip() and "panicked at" not in line and not line.startswith(("note:", "stack backtrace")):
        reasons.setdefault(of, " ".join(line.split())[:300])
    elif found := re.match(r"test (\S+) \.\.\. ", line):
        ended[found[1]] = "FAILED"  # the program ended within

for name, how in ended.items():
    print(f"ok {name}" if how == "ok" else f"failed {name}: {reasons.get(name, 'it ended within')}")
sys.exit("FAILED" in ended.values() or not ended)
