"""A ZEO client by someone who has protocol.md and a socket, and nothing else.

Everything here is written from that page: numbers in comments are its
sections. It uses the standard library only, and of that neither pickle nor
anything else that knows the formats. It is slow and plain; what matters is that
the page is enough.
"""
import io
import socket
import struct

Z64 = bytes(8)
MAXTID = b'\x7f' + b'\xff' * 7


class Refused(Exception):
    """A message that a reader must refuse."""


class Ended(Exception):
    """The other side ended the connection."""


# 5.1

def pack(v):
    if v is None:
        return b'\xc0'
    if v is True or v is False:
        return b'\xc3' if v else b'\xc2'
    if isinstance(v, int):
        for first, form, low, high in ((None, 'b', -32, 128), (0xcc, 'B', 0, 1 << 8), (0xcd, 'H', 0, 1 << 16),
                                       (0xce, 'I', 0, 1 << 32), (0xcf, 'Q', 0, 1 << 64), (0xd0, 'b', -1 << 7, 0),
                                       (0xd1, 'h', -1 << 15, 0), (0xd2, 'i', -1 << 31, 0), (0xd3, 'q', -1 << 63, 0)):
            if low <= v < high:
                return (b'' if first is None else bytes([first])) + struct.pack('>' + form, v)
        raise ValueError(v)
    if isinstance(v, float):
        return b'\xcb' + struct.pack('>d', v)
    if isinstance(v, bytes):
        return sized(len(v), (None, 0xc4, 0xc5, 0xc6)) + v
    if isinstance(v, str):
        b = v.encode()
        return sized(len(b), ((0xa0, 32), 0xd9, 0xda, 0xdb)) + b
    if isinstance(v, dict):
        return sized(len(v), ((0x80, 16), None, 0xde, 0xdf)) + b''.join(pack(k) + pack(v[k]) for k in v)
    return sized(len(v), ((0x90, 16), None, 0xdc, 0xdd)) + b''.join(map(pack, v))


def sized(n, firsts):
    """A length in the shortest form there is."""
    small, *others = firsts
    if small and n < small[1]:
        return bytes([small[0] + n])
    for first, form, limit in zip(others, 'BHI', (1 << 8, 1 << 16, 1 << 32)):
        if first and n < limit:
            return bytes([first]) + struct.pack('>' + form, n)
    raise ValueError(n)


class Unpacker:
    numbers = dict(zip(range(0xca, 0xd4), 'fdBHIQbhiq'))
    bins = {0xc4: 'B', 0xc5: 'H', 0xc6: 'I'}
    texts = {0xd9: 'B', 0xda: 'H', 0xdb: 'I'}
    arrays = {0xdc: 'H', 0xdd: 'I'}
    maps = {0xde: 'H', 0xdf: 'I'}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Refused('cut short')
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack('>' + form, self.take(struct.calcsize(form)))[0]

    def message(self):
        v = self.value(0)
        if self.at != len(self.data):
            raise Refused('bytes are left over')
        return v

    def value(self, depth):
        if depth > 20:
            raise Refused('nested too deeply')
        c = self.number('B')
        if c < 0x80:
            return c
        if c >= 0xe0:
            return c - 256
        if c < 0x90:
            return self.map(c & 15, depth)
        if c < 0xa0:
            return self.array(c & 15, depth)
        if c < 0xc0:
            return self.take(c & 31).decode()
        if c in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[c]
        if c in self.numbers:
            return self.number(self.numbers[c])
        if c in self.bins:
            return bytes(self.take(self.number(self.bins[c])))
        if c in self.texts:
            return self.take(self.number(self.texts[c])).decode()
        if c in self.arrays:
            return self.array(self.number(self.arrays[c]), depth)
        if c in self.maps:
            return self.map(self.number(self.maps[c]), depth)
        raise Refused('first byte %#x' % c)

    def array(self, n, depth):
        if n > len(self.data) - self.at:
            raise Refused('a count that cannot be')
        return tuple(self.value(depth + 1) for _ in range(n))

    def map(self, n, depth):
        if 2 * n > len(self.data) - self.at:
            raise Refused('a count that cannot be')
        return {self.value(depth + 1): self.value(depth + 1) for _ in range(n)}


# 5.2

def pickled(v):
    return b'\x80\x03' + opcodes(v) + b'.'


def opcodes(v):
    if v is None:
        return b'N'
    if v is True or v is False:
        return b'\x88' if v else b'\x89'
    if isinstance(v, int):
        if 0 <= v < 1 << 8:
            return b'K' + struct.pack('<B', v)
        if 0 <= v < 1 << 16:
            return b'M' + struct.pack('<H', v)
        if -1 << 31 <= v < 1 << 31:
            return b'J' + struct.pack('<i', v)
        n = v.bit_length() // 8 + 1
        return b'\x8a' + bytes([n]) + v.to_bytes(n, 'little', signed=True)
    if isinstance(v, float):
        return b'G' + struct.pack('>d', v)
    if isinstance(v, bytes):
        return (b'C' + bytes([len(v)]) if len(v) < 256 else b'B' + struct.pack('<I', len(v))) + v
    if isinstance(v, str):
        return b'X' + struct.pack('<I', len(v.encode())) + v.encode()
    if isinstance(v, list):
        return b']' + (b'(' + b''.join(map(opcodes, v)) + b'e' if v else b'')
    if isinstance(v, dict):
        return b'}' + (b'(' + b''.join(opcodes(k) + opcodes(v[k]) for k in v) + b'u' if v else b'')
    items = b''.join(map(opcodes, v))
    return b')' if not v else items + bytes([0x84 + len(v)]) if len(v) < 4 else b'(' + items + b't'


class Inert:
    """What a class in a pickle becomes: a name, and what was done with it."""

    def __init__(self, name, arguments=None):
        self.name, self.arguments, self.state = name, arguments, None

    def __repr__(self):
        return 'inert %s %r %r' % (self.name, self.arguments, self.state)


class Unpickler(Unpacker):
    """Reads what "Write only these", "Read also these" and "Classes" name."""

    def little(self, form):
        return struct.unpack('<' + form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.data.find(b'\n', self.at)
        if end < 0:
            raise Refused('cut short')
        return self.take(end + 1 - self.at)[:-1].decode()

    def value(self, depth):
        self.stack, self.marks, self.memo = [], [], {}
        try:
            while True:
                op = self.number('B')
                if op == 0x2e:
                    [v] = self.stack
                    return v
                self.step(op)
        except (IndexError, KeyError, ValueError, TypeError, AttributeError) as e:
            raise Refused('malformed pickle: %r' % e)

    def marked(self):
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def pop(self, n):
        if n > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise Refused('nothing to pop')
        items = self.stack[len(self.stack) - n:]
        del self.stack[len(self.stack) - n:]
        return items

    def step(self, op):
        push = self.stack.append
        c = chr(op)
        if op == 0x80:
            if self.number('B') > 3:
                raise Refused('protocol')
        elif c == '(':
            self.marks.append(len(self.stack))
        elif c == ')':
            push(())
        elif 0x85 <= op <= 0x87:
            push(tuple(self.pop(op - 0x84)))
        elif c == 't':
            push(tuple(self.marked()))
        elif c == ']':
            push([])
        elif c == '}':
            push({})
        elif c == 'a':
            [v] = self.pop(1)
            self.stack[-1].append(v)
        elif c == 'e':
            items = self.marked()
            self.stack[-1].extend(items)
        elif c == 's':
            k, v = self.pop(2)
            self.stack[-1][k] = v
        elif c == 'u':
            items = self.marked()
            self.stack[-1].update(zip(items[::2], items[1::2]))
        elif c == 'l':
            push(self.marked())
        elif c == 'd':
            items = self.marked()
            push(dict(zip(items[::2], items[1::2])))
        elif c == 'N' or op in (0x88, 0x89):
            push({0x88: True, 0x89: False}.get(op))
        elif c in 'KMJ':
            push(self.little({'K': 'B', 'M': 'H', 'J': 'i'}[c]))
        elif op in (0x8a, 0x8b):
            push(int.from_bytes(self.take(self.little('B' if op == 0x8a else 'I')), 'little', signed=True))
        elif c == 'G':
            push(self.number('d'))
        elif c in 'CB':
            push(bytes(self.take(self.little('B' if c == 'C' else 'I'))))
        elif c == 'X':
            push(self.take(self.little('I')).decode())
        elif c in 'UT':
            push(self.take(self.little('B' if c == 'U' else 'I')).decode('ascii'))
        elif c in 'qr':
            self.memo[self.little('B' if c == 'q' else 'I')] = self.stack[-1]
        elif c in 'hj':
            push(self.memo[self.little('B' if c == 'h' else 'I')])
        elif c == '0':
            self.pop(1)
        elif c == '1':
            self.marked()
        elif c == '2':
            push(self.stack[-1])
        elif c == 'c':
            push(Inert(self.line() + '.' + self.line()))
        elif c == 'R' or op == 0x81:
            what, arguments = self.pop(2)
            push(Inert(what.name, arguments))
        elif c == 'b':
            [state] = self.pop(1)
            self.stack[-1].state = state
        else:
            raise Refused('opcode %#x' % op)


# 2, 3, 4

class Failed(Exception):
    """An error reply (6)."""

    def __init__(self, name, state):
        super().__init__(name, state)
        self.name, self.state = name, state


class Connection:
    """A connection after the handshake. Messages are dealt with in the order in
    which they come, by whoever waits for a reply."""

    def __init__(self, address, letter=None):
        host, port = address.rsplit(':', 1)
        self.sock = socket.create_connection((host, int(port)))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(60)
        self.file = self.sock.makefile('rb')
        self.last = 0
        self.replies = {}
        self.heard = []         # the one-way calls of the server, in order
        self.blobs = {}         # downloads under way, and whether they are whole
        self.greeting = self.receive()
        self.letter = letter or self.greeting[:1].decode()
        self.frame(self.letter.encode() + b'5')

    def close(self):
        self.file.close()
        self.sock.close()

    def frame(self, payload):
        self.sock.sendall(struct.pack('>I', len(payload)) + payload)

    def receive(self):
        n = struct.unpack('>I', self.read(4))[0]
        return self.read(n)

    def read(self, n):
        try:
            b = self.file.read(n)
        except ConnectionError as e:
            raise Ended(e)
        if len(b) < n:
            raise Ended('after %d of %d bytes' % (len(b), n))
        return b

    def encode(self, message):
        return pack(message) if self.letter == 'M' else pickled(message)

    def one_way(self, name, *args):
        self.frame(self.encode((0, True, name, args)))

    def begin(self, name, *args, id=None):
        if id is None:
            self.last += 1
            id = self.last
        self.frame(self.encode((id, False, name, args)))
        return id

    def end(self, id):
        """The reply to a call that was begun."""
        while id not in self.replies:
            self.hear()
        error, v = self.replies.pop(id)
        if error:
            raise Failed(*v)
        return v

    def call(self, name, *args):
        return self.end(self.begin(name, *args))

    def hear(self):
        """Deal with the next message."""
        payload = self.receive()
        message = (Unpacker if self.letter == 'M' else Unpickler)(payload).message()
        id, flag, name, v = message
        if name == '.reply':
            self.replies[id] = (bool(flag), v)
            return
        if not flag or id != 0:
            raise Refused('not a one-way call: %r' % (message,))
        self.heard.append((name, v))
        if name == 'receiveBlobStart':
            self.blobs[v] = [False, io.BytesIO()]
        elif name == 'receiveBlobChunk':
            self.blobs[v[:2]][1].write(v[2])
        elif name == 'receiveBlobStop':
            self.blobs[v][0] = True

    def told(self, name):
        """The arguments of the one-way calls of a name so far, and forget them."""
        found = [v for n, v in self.heard if n == name]
        self.heard = [(n, v) for n, v in self.heard if n != name]
        return found
