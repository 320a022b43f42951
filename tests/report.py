"""Make go test -json readable: what failed in full, a line for each package.

Lists skipped tests at the end. The status of go test itself counts; this
program only shows. With -v it shows everything.
"""
import collections
import json
import sys

verbose = '-v' in sys.argv[1:]
output = collections.defaultdict(list)  # (package, test) -> lines
skipped = []


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
    if skipped:
        show('\n== WARNING: %d skipped\n' % len(skipped))
        for name, reason in skipped:
            show(f'{name}: {reason}\n')


def handle(event):
    action, package, test = event['Action'], event.get('Package', ''), event.get('Test')
    key = package, test
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
        show(''.join(line for line in output.pop(key, []) if not line.startswith('=== ')))
    elif action == 'skip' and test is not None:
        reason = [line.strip() for line in output.pop(key, []) if not line.startswith(('=== ', '---'))]
        skipped.append((f'{package} {test}', ' '.join(reason) or 'skipped'))
    elif action == 'pass':
        output.pop(key, None)


main()
