"""Make go test -json readable: what failed in full, a line for each package.

    go test -json ./... | python3 tests/report.py

Says at the end which tests took longest, and which were skipped, and why, which go
test alone keeps to itself. The status of go test itself counts; this program only shows. With -v it
shows everything.
"""
import collections
import json
import re
import sys

verbose = '-v' in sys.argv[1:]
output = collections.defaultdict(list)  # (package, test) -> lines
skipped = []
took = []  # (seconds, package, test)
SLOWEST = 15


def show(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def main():
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except ValueError:
            show(line)  # of the go command itself
            continue
        handle(event)
    if took:
        show('\n== took longest\n')
        # The time of a test does not count that of its parts, if they are parallel.
        whole = {(package, test.rpartition('/')[0]) for _, package, test in took}
        tests = collections.Counter()
        for seconds, package, test in took:
            if (package, test) not in whole:
                tests[package, test.partition('/')[0]] += seconds
        for seconds, package, test in took:
            if '/' not in test:
                tests[package, test] = max(tests[package, test], seconds)
        for (package, test), seconds in tests.most_common(SLOWEST):
            show(f'{seconds:6.1f} s  {package} {test}\n')
    if skipped:
        show('\n== WARNING: %d skipped\n' % len(skipped))
        reasons = collections.defaultdict(list)
        for name, reason in skipped:
            # Without the line of the test it stands in.
            reasons[re.sub(r'^\S+_test\.go:\d+: ', '', reason)].append(name)
        for reason, names in reasons.items():
            show(f'{reason}\n' + ''.join(f'    {name}\n' for name in sorted(names)))


def show_output(key):
    show(''.join(line for line in output.pop(key, []) if not line.startswith('=== ')))


def handle(event):
    action, package, test = event['Action'], event.get('Package', ''), event.get('Test')
    key = package, test
    if action in ('pass', 'fail') and test is not None:
        took.append((event.get('Elapsed', 0), package.rpartition('zeolite-go/')[2], test))
    if action == 'build-output':
        show(event['Output'])
    elif action == 'output':
        text = event['Output']
        if verbose:
            show(text)
        elif test is None and text.startswith(('ok', 'FAIL\t', '?')):
            show(text)
        else:
            output[key].append(text)
    elif action == 'fail' and not verbose:
        show_output(key)
        if test is None:
            # Of a test that ran when the process died, nothing says that it has
            # failed; and it is with one of these that the trace stands.
            for left in [k for k in output if k[0] == package]:
                show_output(left)
    elif action == 'skip' and test is not None:
        reason = [line.strip() for line in output.pop(key, []) if not line.startswith(('=== ', '---'))]
        skipped.append((f'{package} {test}', ' '.join(reason) or 'skipped'))
    elif action == 'pass':
        output.pop(key, None)


main()
