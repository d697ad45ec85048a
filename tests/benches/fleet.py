"""One gateway with many partners: a hub in prA, and a gateway of its own for each partner in prB, all with one platform.

What is measured of the hub: what a partner costs when nothing happens (processor, memory, bytes on the wire), how long it
takes until everybody is connected after a restart, and messages on ten connections with each partner."""
import argparse, json, os, shutil, subprocess, sys, time
import bench, ours, peers
from ours import BIN, HOME, write

HUB, FIRST_PORT = 'a', 7200


class Hub(ours.Ours):
    name = 'gateway-fleet'

    def __init__(s, count): s.count = count

    def start(s, c):
        os.umask(0o077)
        shutil.rmtree(HOME, ignore_errors=True)
        for d in ('c', 'r', 'a', 'ctl'): os.makedirs(f'{HOME}/{d}')
        s.platform(c)
        s.site(c, HUB)
        s.partners(c)

    def partners(s, c):
        write(f'{HOME}/b.pw', 'a long enough password\n')
        s.ctl('organization', 'create', '--profile', 'b', *s.operator(), '--name', 'Side b', '--owner-email', 'owner@b.example', '--owner-name', 'Owner', '--password-file', f'{HOME}/b.pw', '--discoverable')
        s.ctl('peering', 'request', 'Side b', '--profile', 'a')
        s.ctl('peering', 'accept', 'Side a', '--profile', 'b')
        for i in range(s.count):
            home, name = f'{HOME}/b{i}', f'partner {i}'
            os.makedirs(home)
            write(f'{HOME}/b{i}.toml', f'state_dir = "{home}/state"\nsocket = "{home}/sock"\n[tunnel]\ndirect = true\n')
            c.spawn('B', [f'{BIN}/gatewayd', 'run', '--config', f'{HOME}/b{i}.toml'])
            s.ctl('server', 'create', name, '--profile', 'b')
            code = json.loads(s.ctl('server', 'enrollment-code', name, '--profile', 'b', '--json'))['code']
            while not os.path.exists(f'{home}/sock'): time.sleep(0.02)
            s.enroll(f'{home}/sock', code)
            s.ctl('channel', 'create', '--profile', 'b', '--server', name, '--name', f'x{i}', '--engine', '127.0.0.1:7000', '--publish', f'X{i}', '--behavior', s.behavior)
            s.ctl('grant', 'offer', '--profile', 'b', '--channel', f'x{i}', '--to', 'Side a')
            s.ctl('grant', 'approve', f'X{i}', '--profile', 'a', '--server', 'server a', '--port', str(FIRST_PORT + i))
            print(f'\r{i + 1} of {s.count} partners', end='', file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def enroll(s, socket, code):
        """All from one address: beyond its share the control plane says to wait a second."""
        for attempt in range(30):
            try: return s.ctl('gateway', 'enroll', '-', '--socket', socket, stdin=code)
            except RuntimeError as e:
                if 'too many requests' not in str(e) or attempt == 29: raise
                time.sleep(1)

    def connected(s, goal):
        s.ctl('status', '--socket', f'{HOME}/{HUB}/sock', '--wait', goal, '--timeout', '50s')


def wire(): return [int(open(f'/proc/{bench.pids("A")[0]}/net/dev').read().split(f'{dev}:')[1].split()[i]) for dev in ('vA', 'vAR') for i in (0, 1, 8, 9)]


def at_rest(hub, seconds):
    """Processor, bytes and packets of the hub per partner and second."""
    cpu, before = bench.usage('A'), wire()
    time.sleep(seconds)
    passed = [(now - was) / seconds / hub.count for now, was in zip(wire(), before)]
    return {'cpu_percent': (bench.usage('A') - cpu) / seconds * 100, 'bytes_s_partner': passed[0] + passed[2], 'packets_s_partner': passed[1] + passed[3]}


def messages(count, connections, seconds):
    os.environ['MLT_PORTS'] = str(count)
    return bench.measured(['pp', '127.0.0.1', FIRST_PORT, seconds, connections])


def run(count, rest):
    bench.cgroups()
    hub, ctx = Hub(count), bench.Ctx('gateway-fleet')
    result = {'partners': count}
    try:
        ctx.spawn('S', [bench.MLT, 'server', '0.0.0.0', '7000'])
        ctx.wait_port('B', '0.0.0.0', 7000)
        hub.start(ctx)
        hub.connected('direct')
        hub.stop(ctx, HUB)
        begun = time.monotonic()
        hub.daemon(ctx, HUB)
        while not os.path.exists(f'{HOME}/{HUB}/sock'): time.sleep(0.01)
        hub.connected('connected')
        result['all_connected_s'] = time.monotonic() - begun
        hub.connected('direct')
        result['all_direct_s'] = time.monotonic() - begun
        time.sleep(20)
        result['rest'] = at_rest(hub, rest)
        result['rss_mib'] = bench.mem('A')[0] / 1024
        # As many as the partners' engines take: ten each.
        for connections in (count, 10 * count):
            got = messages(count, connections, 5)
            result[f'messages, {connections} connections'] = {k: got.get(k) for k in ('per_s', 'p50_us', 'p99_us', 'errors', 'cpuA', 'n', 'failed')}
        result['rss_after_mib'] = bench.mem('A')[0] / 1024
    finally:
        ctx.stop()
    return result


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--partners', type=int, default=100)
    parser.add_argument('--rest', type=float, default=60)
    args = parser.parse_args()
    print(json.dumps(run(args.partners, args.rest), indent=1))
