"""Mixed load for minutes: 24 engines send at once, messages and answers of 100 bytes, 10 KiB and 1 MiB in every pairing, connections
of 1 to 200 messages, through a pair of gateways on the direct path with MLLP observed. Every answer is checked against its message,
the receiving engine counts what it got, and the memory of both gateways is looked at all the time.

mixed.py --minutes N             the whole of it
mixed.py engine PORT             the receiving engine; tells what it got when it is ended
mixed.py senders HOST PORT SECS  the sending engines"""
import argparse, asyncio, itertools, json, random, signal, subprocess, sys, time

SIZES = (100, 10 << 10, 1 << 20)
PAIRINGS = list(itertools.product(SIZES, SIZES))
FLOWS = 24
# A connection moves no more than this in each direction, so that all sizes have connections that come and go.
MOST = 64 << 20
END = b'\x1c\r'
LOOK_EVERY = 5


def padded(head, size): return head + b'x' * max(0, size - len(head) - len(b'\r' + END)) + b'\r' + END


def message(control, size, answer):
    return padded(f'\x0bMSH|^~\\&|{answer}|B|C|D|20260101120000||ORU^R01|{control}|P|2.5\rOBX|1|TX|||'.encode(), size)


def acknowledgement(control, size):
    return padded(f'\x0bMSH|^~\\&|C|D|A|B|20260101120000||ACK|A{control}|P|2.5\rMSA|AA|{control}\rNTE|1||'.encode(), size)


async def engine(port):
    seen, counts, stop = set(), {'received': 0, 'doubled': 0, 'cut': 0}, asyncio.Event()

    async def serve(reader, writer):
        try:
            while True:
                fields = (await reader.readuntil(END)).split(b'\r', 1)[0].split(b'|')
                control = fields[9].decode()
                counts['received'] += 1
                counts['doubled'] += control in seen
                seen.add(control)
                writer.write(acknowledgement(control, int(fields[2])))
                await writer.drain()
        except asyncio.IncompleteReadError as e: counts['cut'] += bool(e.partial)
        except OSError: counts['cut'] += 1
        finally: writer.close()

    server = await asyncio.start_server(serve, '0.0.0.0', port, limit=4 << 20)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with server: await stop.wait()
    print(json.dumps(counts), flush=True)


async def senders(host, port, seconds):
    counts = {'messages': 0, 'bytes': 0, 'connections': 0, 'failed': 0, 'wrong': 0, 'slowest_ms': 0}
    until = time.monotonic() + seconds

    async def flow(number):
        dice, sent = random.Random(number), 0
        for size, answer in itertools.cycle(PAIRINGS[number % len(PAIRINGS):] + PAIRINGS[:number % len(PAIRINGS)]):
            if time.monotonic() > until: return
            try:
                reader, writer = await asyncio.open_connection(host, port, limit=4 << 20)
                for _ in range(min(dice.randint(1, 200), MOST // max(size, answer))):
                    control, sent, begun = f'{number}-{sent}', sent + 1, time.monotonic()
                    asked = message(control, size, answer)
                    writer.write(asked)
                    await writer.drain()
                    got = await reader.readuntil(END)
                    counts['messages'] += 1
                    counts['bytes'] += len(asked) + len(got)
                    counts['wrong'] += got != acknowledgement(control, answer)
                    counts['slowest_ms'] = max(counts['slowest_ms'], round((time.monotonic() - begun) * 1e3))
                writer.write_eof()
                counts['failed'] += await reader.read() != b''
                writer.close()
                await writer.wait_closed()
            except (OSError, asyncio.IncompleteReadError): counts['failed'] += 1
            counts['connections'] += 1

    await asyncio.gather(*(flow(number) for number in range(FLOWS)))
    print(json.dumps(counts), flush=True)


def run(minutes):
    import bench, ours
    bench.cgroups()
    pair, ctx = ours.Ours(), bench.Ctx('gateway-mixed')
    me = [sys.executable, __file__]
    try:
        receiving = ctx.spawn('S', [*me, 'engine', '7000'])
        ctx.wait_port('B', '0.0.0.0', 7000)
        pair.start(ctx)
        pair.wait('a')
        sending = ctx.spawn('C', [*me, 'senders', *map(str, pair.target), str(minutes * 60)])
        looks, begun = [], time.monotonic()
        while sending.poll() is None:
            time.sleep(LOOK_EVERY)
            at, mib = time.monotonic() - begun, [bench.mem(end)[0] / 1024 for end in 'AB']
            looks.append((at, mib))
            print(f'\r{at / 60:4.1f} of {minutes} min, A {mib[0]:.1f} MiB, B {mib[1]:.1f} MiB ', end='', file=sys.stderr, flush=True)
        print(file=sys.stderr)
        receiving.send_signal(signal.SIGTERM)
        # The shell became the engine: its last word is in its log.
        receiving.wait(20)
        told = [json.loads(open(p.logpath).read().strip().splitlines()[-1]) for p in (sending, receiving)]
    finally:
        ctx.stop()
    # Fifths of the time, least and most of each: what leaks shows from one to the next.
    fifth = minutes * 60 / 5
    parts = [[mib for at, mib in looks if n * fifth <= at < (n + 1) * fifth] for n in range(5)]
    return {**told[0], **told[1], 'minutes': minutes,
            'rss_mib': {end: [f'{min(m[i] for m in part):.1f}–{max(m[i] for m in part):.1f}' for part in parts if part] for i, end in enumerate('AB')}}


if __name__ == '__main__':
    if sys.argv[1:2] == ['engine']: asyncio.run(engine(int(sys.argv[2])))
    elif sys.argv[1:2] == ['senders']: asyncio.run(senders(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument('--minutes', type=float, default=20)
        result = run(parser.parse_args().minutes)
        print(json.dumps(result, indent=1, ensure_ascii=False))
        sys.exit(bool(result['failed'] or result['wrong'] or result['doubled'] or result['cut'] or result['received'] != result['messages']))
