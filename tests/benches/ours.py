"""This project's own daemons as peers: the real control plane, real enrolment, real grants, every stream authorized.

A run sets up one platform in prR and a gateway in prA and prB, walks the five steps with gateway-ctl, waits for the path
that the row names, then stops the gateway of side A and starts it again with its policy on disk: that is "A start"."""
import json, os, shutil, signal, subprocess, time
from peers import Peer, W, sh

BIN = os.environ.get('BENCH_BIN') or os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../target/dist')
HOME = f'{W}/ours'
# A relay lets one gateway send 100 Mbit/s unless it is told otherwise; here it is the speed that is asked for.
UNLIMITED = '[limits]\nclient_bytes_per_second = 0\n'


def write(path, text):
    with open(path, 'w') as f: f.write(text)


def ready(path, limit=20):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try: return json.load(open(path))
        except (OSError, ValueError): time.sleep(0.02)
    raise RuntimeError(f'{path} did not appear')


class Ours(Peer):
    name, note = 'gateway-direct', 'gatewayd, direct path, MLLP observed and every stream authorized'
    behavior, path, relay = 'hl7v2-mllp', 'direct', ''

    def start(s, c):
        os.umask(0o077)
        shutil.rmtree(HOME, ignore_errors=True)
        for d in ('c', 'r', 'a', 'b', 'ctl'): os.makedirs(f'{HOME}/{d}')
        s.platform(c)
        for side in 'ab': s.site(c, side)
        s.agree()
        s.wait('a')
        s.stop(c, 'a')
        c.mark_a()
        s.daemon(c, 'a')

    def platform(s, c):
        write(f'{HOME}/c.toml', f'listen = "10.77.1.1:8443"\ndata_dir = "{HOME}/c"\n')
        # Counted with the relay; it has nothing to do while a row is measured.
        c.spawn('R', [f'{BIN}/gateway-control', 'run', '--config', f'{HOME}/c.toml'])
        key = ready(f'{HOME}/c/ready.json')['policy_key']
        write(f'{HOME}/r.toml', f'listen = "10.77.1.1:443"\nstun_listen = ["10.77.1.1:3478", "10.77.1.1:3479"]\ndata_dir = "{HOME}/r"\ncontrol_keys = ["{key}"]\n{s.relay}')
        c.spawn('R', [f'{BIN}/gateway-relay', '--config', f'{HOME}/r.toml'])
        ready(f'{HOME}/r/ready.json')
        s.ctl('relay', 'add', *s.operator(), '--from-ready-file', f'{HOME}/r/ready.json', '--name', 'r1')

    def operator(s): return ['--control-ready-file', f'{HOME}/c/ready.json', '--operator-token-file', f'{HOME}/c/operator-token']

    def ctl(s, *args, stdin=None):
        p = subprocess.run(['ip', 'netns', 'exec', 'prR', f'{BIN}/gateway-ctl', *args], capture_output=True, text=True, timeout=60, input=stdin,
                           env={**os.environ, 'GATEWAY_CTL_HOME': f'{HOME}/ctl'})
        if p.returncode: raise RuntimeError(f'gateway-ctl {" ".join(args[:2])}: {p.stderr.strip()[-300:]}')
        return p.stdout

    def site(s, c, side):
        write(f'{HOME}/{side}.toml', f'state_dir = "{HOME}/{side}/state"\nsocket = "{HOME}/{side}/sock"\n[listener]\nmax_connections = 4000\n[tunnel]\ndirect = {"true" if s.path == "direct" else "false"}\n')
        s.daemon(c, side)
        write(f'{HOME}/{side}.pw', 'a long enough password\n')
        s.ctl('organization', 'create', '--profile', side, *s.operator(), '--name', f'Side {side}', '--owner-email', f'owner@{side}.example', '--owner-name', 'Owner',
              '--password-file', f'{HOME}/{side}.pw', '--discoverable')
        s.ctl('server', 'create', f'server {side}', '--profile', side)
        code = json.loads(s.ctl('server', 'enrollment-code', f'server {side}', '--profile', side, '--json'))['code']
        end = time.monotonic() + 10
        while not os.path.exists(f'{HOME}/{side}/sock') and time.monotonic() < end: time.sleep(0.02)
        s.ctl('gateway', 'enroll', '-', '--socket', f'{HOME}/{side}/sock', stdin=code)

    def daemon(s, c, side):
        s.pids = getattr(s, 'pids', {})
        s.pids[side] = c.spawn(side.upper(), [f'{BIN}/gatewayd', 'run', '--config', f'{HOME}/{side}.toml'])

    def stop(s, c, side):
        s.pids[side].send_signal(signal.SIGTERM)
        s.pids[side].wait(10)

    def agree(s):
        s.ctl('peering', 'request', 'Side b', '--profile', 'a')
        s.ctl('peering', 'accept', 'Side a', '--profile', 'b')
        s.ctl('channel', 'create', '--profile', 'b', '--server', 'server b', '--name', 'x', '--engine', '127.0.0.1:7000', '--publish', 'X', '--behavior', s.behavior)
        s.ctl('grant', 'offer', '--profile', 'b', '--channel', 'x', '--to', 'Side a', '--max-streams', '2000')
        s.ctl('grant', 'approve', 'X', '--profile', 'a', '--server', 'server a', '--port', '7100')

    def wait(s, side):
        s.ctl('status', '--socket', f'{HOME}/{side}/sock', '--wait', 'direct' if s.path == 'direct' else 'connected', '--timeout', '30s')


class OursTcp(Ours):
    name, note, behavior = 'gateway-direct-tcp', 'gatewayd, direct path, no observer (behavior tcp)', 'tcp'


class OursRelayed(Ours):
    name, note, path = 'gateway-relayed-tls', 'gatewayd through gateway-relay over WebSocket/TLS; direct link down', 'relayed'
    net = ('direct off', 'direct on')
    relay = f'udp_listen = "off"\n{UNLIMITED}'


class OursRelayedUdp(OursRelayed):
    name, note, relay = 'gateway-relayed-udp', 'gatewayd through gateway-relay over UDP; direct link down', UNLIMITED


OURS = [Ours, OursTcp, OursRelayedUdp, OursRelayed]
