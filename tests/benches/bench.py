#!/usr/bin/env python3
"""bench.py [--rounds N] [--peers a,b,..] [--tests t,..] [--out FILE] [--quick]   -> one JSON line per test in FILE
   bench.py --wires                 the same over a wire with delay and loss (gateway-hop)
   bench.py --smoke [--peers ..]    start each peer once, one probe, stop
   bench.py --report FILE..         tables (markdown) from JSON lines
Peers are alternated: every round runs every peer once. Own processes only are ended (by pid, from their cgroup)."""
import argparse, json, os, re, signal, statistics, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peers as P
from ours import OURS
P.ALL += OURS
P.BY.update({p.name: p for p in OURS})

HERE = os.path.dirname(os.path.abspath(__file__))
MLT = f'{P.B}/mlt'
CG = '/sys/fs/cgroup/cpuacct/peers'
CS = '/sys/fs/cgroup/cpuset/peers'
ENDS = ['A', 'B', 'R', 'C', 'S', 'H']   # tunnel ends A, B, relay R, client C, server S, harness H
LOGS = f'{P.W}/log'


def cg(end): return f'{CG}/{end}'
def rd(p): return open(p).read()
def join(end): return f'echo $$ > {cg(end)}/cgroup.procs; echo $$ > {CS}/{end}/cgroup.procs; '


def cgroups():
    for d in [CG, CS]: os.makedirs(d, exist_ok=True)
    def w(p, v): open(p, 'w').write(v)
    w(CS + '/cpuset.mems', '0'); w(CS + '/cpuset.cpus', '0-1')
    for e in ENDS:
        os.makedirs(f'{CG}/{e}', exist_ok=True); os.makedirs(f'{CS}/{e}', exist_ok=True)
        w(f'{CS}/{e}/cpuset.mems', '0'); w(f'{CS}/{e}/cpuset.cpus', '0-1')
    w(cg('H') + '/cgroup.procs', str(os.getpid()))


def pin(on):
    """on: everything of side A (client, tunnel end) on CPU 0, everything of side B on CPU 1, as two one-core machines."""
    for e, c in (('A', '0'), ('C', '0'), ('B', '1'), ('S', '1')):
        open(f'{CS}/{e}/cpuset.cpus', 'w').write(c if on else '0-1')


def foreign(secs):
    u0 = sum(usage(e) for e in ENDS); r0, k0, t0 = usage(), kthreads(), time.monotonic()
    time.sleep(secs)
    return max(0, usage() - r0 - (sum(usage(e) for e in ENDS) - u0) - (kthreads() - k0)) / (time.monotonic() - t0) / 2


def quiet(maxwait=6):
    t = time.monotonic()
    while foreign(0.25) > 0.06 and time.monotonic() - t < maxwait: time.sleep(0.5)
    return time.monotonic() - t
def usage(end=None): return int(rd((cg(end) if end else '/sys/fs/cgroup/cpuacct') + '/cpuacct.usage')) / 1e9


def kthreads():
    """CPU seconds of kernel threads (10 ms grain): ksoftirqd and kworkers do part of the network work."""
    t = 0
    for d in os.listdir('/proc'):
        if d.isdigit():
            try:
                f = rd(f'/proc/{d}/stat').rsplit(')', 1)[1].split()
                if f[1] == '2': t += int(f[11]) + int(f[12])
            except OSError: pass
    return t / 100


def pids(end):
    try: return [int(x) for x in rd(cg(end) + '/cgroup.procs').split()]
    except OSError: return []


def mem(end):
    rss = pss = 0
    for p in pids(end):
        try:
            rss += int(re.search(r'VmRSS:\s+(\d+)', rd(f'/proc/{p}/status')).group(1))
            pss += int(re.search(r'Pss:\s+(\d+)', rd(f'/proc/{p}/smaps_rollup')).group(1))
        except (OSError, AttributeError): pass
    return rss, pss, len(pids(end))


class Ctx:
    def __init__(s, name): s.name, s.procs, s.t0, s.ta, s.n = name, [], time.monotonic(), None, 0
    def spawn(s, end, argv, env=None, stdin=subprocess.DEVNULL):
        s.n += 1
        log = f'{LOGS}/{s.name}-{end}-{s.n}.log'
        ns = {'C': 'prA', 'S': 'prB'}.get(end, 'pr' + end)
        f = open(log, 'w')
        e = dict(os.environ); e.update(env or {})
        p = subprocess.Popen(['bash', '-c', join(end) + f'ulimit -n $(ulimit -Hn); exec ip netns exec {ns} "$@"', 'x'] + argv, stdin=stdin, stdout=f, stderr=subprocess.STDOUT, env=e)
        p.logpath = log
        s.procs.append(p)
        return p
    def mark_a(s): s.ta = time.monotonic()
    def _wait(s, end, opt, pat, lim=15):
        t = time.monotonic()
        while time.monotonic() - t < lim:
            if re.search(pat, subprocess.run(['ip', 'netns', 'exec', 'pr' + end, 'ss', '-Hn' + opt], capture_output=True, text=True).stdout): return
            time.sleep(0.01)
        raise RuntimeError(f'{s.name}: {end} does not listen ({pat})')
    def wait_port(s, end, ip, port): s._wait(end, 'tl', rf'(\*|{re.escape(ip)}|0\.0\.0\.0|\[::\]):{port}\s')
    def wait_udp(s, end, port): s._wait(end, 'ul', rf':{port}\s')
    def stop(s):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            for end in 'ABRS':
                for p in pids(end):
                    try: os.kill(p, sig)
                    except OSError: pass
            for _ in range(100):
                for p in s.procs: p.poll()
                if not any(pids(e) for e in 'ABRS'): break
                time.sleep(0.02)
            else: continue
            break
        for p in s.procs:
            try: p.wait(2)
            except subprocess.TimeoutExpired: pass


def client(args, timeout=90):
    p = subprocess.run(['bash', '-c', join('C') + f'exec ip netns exec prA {MLT} "$@"', 'x'] + [str(a) for a in args], capture_output=True, text=True, timeout=timeout)
    try: return json.loads(p.stdout.strip().splitlines()[-1])
    except Exception: return {'failed': (p.stderr or p.stdout)[-200:], 'rc': p.returncode}


def measured(args):
    u0 = {e: usage(e) for e in ENDS}; r0, k0, t0 = usage(), kthreads(), time.monotonic()
    res = client(args)
    dt = time.monotonic() - t0
    d = {e: usage(e) - u0[e] for e in ENDS}
    k = kthreads() - k0
    res.update({'cpuA': d['A'], 'cpuB': d['B'], 'cpuR': d['R'], 'cpuC': d['C'], 'cpuS': d['S'], 'kthr': k, 'wall': dt,
                'foreign': max(0, (usage() - r0 - sum(d.values()) - k)) / (dt * 2), 'load': os.getloadavg()[0]})
    return res


MIB = 1 << 20
# test: (mlt command, seconds, connections, pinned, bytes of a message and of its answer where they are not 1,024 and 100); `beside`: messages on
# one connection beside a transfer over so many
TESTS = {'bulk1': ('bulk', 1.5, 1, False), 'bulk1p': ('bulk', 1.5, 1, True), 'bulk8': ('bulk', 1.5, 8, False), 'pp1': ('pp', 1.0, 1, True), 'pp1u': ('pp', 1.0, 1, False),
         'pp64': ('pp', 1.0, 64, False), 'new1': ('new', 1.0, 1, True), 'new8': ('new', 1.0, 8, False),
         'back1': ('back', 1.5, 1, False), 'back8': ('back', 1.5, 8, False), 'both1': ('both', 1.5, 1, False),
         'pp100b': ('pp', 1.0, 1, True, 100, 100), 'pp10k': ('pp', 1.0, 1, True, 10 << 10, 100), 'pp1m': ('pp', 1.5, 1, False, MIB, 100), 'ppback1m': ('pp', 1.5, 1, False, 100, MIB),
         'beside1': ('beside', 1.5, 1, False), 'beside8': ('beside', 1.5, 8, False),
         'pp64x10k': ('pp', 1.5, 64, False, 10 << 10, 10 << 10), 'pp8x1m': ('pp', 1.5, 8, False, MIB, MIB)}


def up(peer, ctx):
    ctx.spawn('S', [MLT, 'server', '0.0.0.0', '7000'])
    ctx.wait_port('B', '0.0.0.0', 7000)
    ctx.t0 = time.monotonic()
    ctx.ta = None
    peer.start(ctx)
    if ctx.ta is None: ctx.ta = ctx.t0
    r = client(['probe', *peer.target, 20], timeout=40)
    if 'at' not in r: raise RuntimeError(f'{peer.name}: no first byte: {r}')
    return {'test': 'start', 'both_ms': (r['at'] - ctx.t0) * 1e3, 'a_ms': (r['at'] - ctx.ta) * 1e3, 'load': os.getloadavg()[0]}


def run_peer(cls, rnd, tests, out, retries, maxforeign):
    peer = cls()
    def emit(r): r.update({'peer': peer.name, 'round': rnd, 'ts': time.time()}); out.write(json.dumps(r) + '\n'); out.flush(); print(peer.name, rnd, {k: (round(v, 3) if isinstance(v, float) else v) for k, v in r.items() if k not in ('peer', 'round', 'ts')}, flush=True)
    if peer.net: P.sh(f'{HERE}/setup-netns {peer.net[0]}')
    try:
        if 'mem' in tests:
            ctx = Ctx(peer.name)
            try:
                emit(up(peer, ctx))
                time.sleep(0.3)
                i = {e: mem(e) for e in 'ABR'}
                p = subprocess.Popen(['bash', '-c', join('C') + f'exec ip netns exec prA {MLT} "$@"', 'x', 'idle', *map(str, peer.target), '1000', '30'], stdout=subprocess.PIPE, text=True)
                line = p.stdout.readline()
                time.sleep(0.3)
                m = {e: mem(e) for e in 'ABR'}
                p.kill(); p.wait()
                r = json.loads(line)
                r.update({'test': 'mem', **{f'idle{e}_kb': i[e][0] for e in 'ABR'}, **{f'full{e}_kb': m[e][0] for e in 'ABR'}, **{f'idlepss{e}_kb': i[e][1] for e in 'ABR'}, **{f'fullpss{e}_kb': m[e][1] for e in 'ABR'}, 'load': os.getloadavg()[0]})
                emit(r)
            except Exception as e: emit({'test': 'mem', 'failed': str(e)[-200:]})
            finally: ctx.stop()
        perf = [t for t in tests if t in TESTS]
        if perf:
            ctx = Ctx(peer.name)
            try:
                up(peer, ctx)
                for t in perf:
                    cmd, secs, n, pinned, *sizes = TESTS[t]
                    pin(pinned)
                    best = None
                    for k in range(1 + retries):
                        wq = quiet()
                        r = beside(peer.target, 1, secs, n, *sizes) if cmd == 'beside' else measured([cmd, *peer.target, secs, n, *sizes]); r['waited'] = wq
                        if best is None or ('failed' in best and 'failed' not in r) or r['foreign'] < best['foreign']: best = r
                        if best['foreign'] <= maxforeign and 'failed' not in best: break
                        time.sleep(1)
                    best['test'] = t; best['tries'] = k + 1
                    emit(best)
            except Exception as e: emit({'test': 'perf', 'failed': str(e)[-200:]})
            finally: pin(False); ctx.stop()
    finally:
        if peer.net: P.sh(f'{HERE}/setup-netns {peer.net[1]}')


# name: what gateway-hop does to each direction; half of the round trip. The queue holds 100 ms of the line, or plenty.
WIRES = {'20 ms': 'delay=10ms', '20 ms, 1 %': 'delay=10ms loss=1', '20 ms, 5 %': 'delay=10ms loss=5',
         '80 ms': 'delay=40ms', '80 ms, 1 %': 'delay=40ms loss=1', '80 ms, 5 %': 'delay=40ms loss=5',
         '100 Mbit/s, 20 ms': 'delay=10ms rate=100000000 queue=830', '100 Mbit/s, 80 ms': 'delay=40ms rate=100000000 queue=830'}
# Transfers fill it, and a connection that is kept open sends a MiB within two seconds: messages beside transfers for ten.
FULL = '100 Mbit/s, 20 ms'
CLEAN = 'delay=0ms jitter=0ms loss=0 rate=0 queue=16000'
HOP = os.environ.get('BENCH_HOP') or os.path.join(HERE, '../../target/dist/gateway-hop')


def background(args):
    return subprocess.Popen(['bash', '-c', join('C') + f'exec ip netns exec prA {MLT} "$@"', 'x', *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sent_by_a():
    """Bytes that side A has put on its link."""
    lines = subprocess.run(['ip', 'netns', 'exec', 'prA', 'cat', '/proc/net/dev'], capture_output=True, text=True).stdout.splitlines()[2:]
    return sum(int(rest.split()[8]) for name, rest in (line.split(':') for line in lines) if name.strip() != 'lo')


def beside(target, lead, secs, transfers, *sizes):
    """Messages on one connection beside transfers through the same tunnel, once those are up to speed after `lead` seconds; and what
    goes over the link meanwhile."""
    bulk = background(['bulk', *target, lead + secs + 60, transfers])
    try:
        time.sleep(lead)
        sent, since = sent_by_a(), time.monotonic()
        result = measured(['pp', *target, secs, 1, *sizes])
        result['link_mib_s'] = (sent_by_a() - sent) / MIB / (time.monotonic() - since)
        return result if bulk.poll() is None else {**result, 'failed': 'the transfer ended before the messages did'}
    finally: bulk.terminate(); bulk.wait()


def run_wires(ps, wires, rnd, out):
    """Every wire with every peer, peers alternated; a tunnel is started anew for each wire, as no path changes like that."""
    P.sh(f'{HERE}/setup-netns hop on')
    hop = subprocess.Popen(['ip', 'netns', 'exec', 'prH', HOP, 'hA', 'hB', *CLEAN.split()], stdin=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
    def shape(text): hop.stdin.write(text + '\n'); hop.stdin.flush(); time.sleep(0.2)
    try:
        for wire in wires:
            for cls in ps:
                peer, ctx = cls(), Ctx(cls.name)
                def emit(r): r.update({'peer': peer.name, 'round': rnd, 'wire': wire, 'ts': time.time()}); out.write(json.dumps(r) + '\n'); out.flush(); print(wire, peer.name, {k: (round(v, 3) if isinstance(v, float) else v) for k, v in r.items() if k in ('test', 'mib_s', 'p50_us', 'failed', 'foreign')}, flush=True)
                try:
                    shape(CLEAN); shape(WIRES[wire])
                    up(peer, ctx)
                    runs = [('bulkw', lambda: measured(['bulk', *peer.target, 8, 1])), ('ppw', lambda: measured(['pp', *peer.target, 2, 1])), ('ppbulk', lambda: beside(peer.target, 3, 3, 1))]
                    if wire == FULL: runs.append(('ppkept', lambda: beside(peer.target, 3, 10, 8, 10 << 10, 100)))
                    for test, run in runs:
                        quiet(3)
                        emit({**run(), 'test': test})
                except Exception as e: emit({'test': 'wire', 'failed': str(e)[-200:]})
                finally: ctx.stop()
    finally:
        hop.terminate(); hop.wait()
        P.sh(f'{HERE}/setup-netns hop off')


def report(files, base='plain'):
    rows = [json.loads(l) for f in files for l in open(f)]
    names = []
    for r in rows:
        if r['peer'] not in names: names.append(r['peer'])
    def vals(peer, test, fn):
        v = []
        for r in rows:
            if r['peer'] == peer and r['test'] == test and 'failed' not in r:
                try: v.append(fn(r))
                except (KeyError, ZeroDivisionError, TypeError): pass
        return v
    def mmm(v, f='{:.0f}'): return '-' if not v else '/'.join(f.format(x) for x in (min(v), statistics.median(v), max(v)))
    def med(v): return statistics.median(v) if v else None
    gib = lambda r: r['bytes'] / 2**30
    def table(title, cols):
        if all(set(c[1](n) for n in names) <= {'-', '0'} for c in cols): return
        print(f'\n### {title}\n'); print('| peer | ' + ' | '.join(c[0] for c in cols) + ' |'); print('|---' * (len(cols) + 1) + '|')
        for n in names: print(f'| {n} | ' + ' | '.join(c[1](n) for c in cols) + ' |')
    def ratio(test, key):
        def f(n):
            b, v = med(vals(base, test, lambda r: r[key])), med(vals(n, test, lambda r: r[key]))
            return '-' if not b or not v else f'{v / b:.3f}'
        return f
    err = lambda t: (lambda n: str(sum(r.get('errors', 0) for r in rows if r['peer'] == n and r['test'] == t) + sum(1 for r in rows if r['peer'] == n and r['test'] == t and 'failed' in r)))
    fo = lambda t: (lambda n: mmm(vals(n, t, lambda r: r['foreign'] * 100)))
    ld = lambda t: (lambda n: mmm(vals(n, t, lambda r: r['load']), '{:.1f}'))
    for t, ti in (('bulk1', '1 stream'), ('bulk1p', '1 stream, side A on CPU 0 and side B on CPU 1'), ('bulk8', '8 streams')):
        table(f'Bulk A->B, {ti} (min/median/max)', [('MiB/s', lambda n, t=t: mmm(vals(n, t, lambda r: r['mib_s']))), ('of plain', ratio(t, 'mib_s')),
              ('CPU s/GiB tunnel A', lambda n, t=t: mmm(vals(n, t, lambda r: r['cpuA'] / gib(r)), '{:.2f}')), ('CPU s/GiB tunnel B', lambda n, t=t: mmm(vals(n, t, lambda r: r['cpuB'] / gib(r)), '{:.2f}')),
              ('relay R', lambda n, t=t: mmm(vals(n, t, lambda r: r['cpuR'] / gib(r)), '{:.2f}')), ('A+B+R', lambda n, t=t: mmm(vals(n, t, lambda r: (r['cpuA'] + r['cpuB'] + r['cpuR']) / gib(r)), '{:.2f}')),
              ('all incl. load gen + kthreads', lambda n, t=t: mmm(vals(n, t, lambda r: (r['cpuA'] + r['cpuB'] + r['cpuR'] + r['cpuC'] + r['cpuS'] + r['kthr']) / gib(r)), '{:.2f}')),
              ('errors', err(t)), ('foreign CPU %', fo(t)), ('load', ld(t))])
    for t, ti in (('pp1', 'Request/response 1 KiB/100 B, 1 connection, sides pinned to a CPU each'), ('pp1u', 'Request/response, 1 connection, not pinned'), ('pp64', '64 connections'), ('new1', 'New connection + 1 exchange, one at a time'), ('new8', 'New connections, 8 at a time')):
        table(ti + ' (min/median/max)', [('per s', lambda n, t=t: mmm(vals(n, t, lambda r: r['per_s']))), ('of plain', ratio(t, 'per_s')), ('p50 us', lambda n, t=t: mmm(vals(n, t, lambda r: r['p50_us']))),
              ('p99 us', lambda n, t=t: mmm(vals(n, t, lambda r: r['p99_us']))), ('tunnel CPU us/op', lambda n, t=t: mmm(vals(n, t, lambda r: (r['cpuA'] + r['cpuB'] + r['cpuR']) / r['n'] * 1e6), '{:.1f}')), ('errors', err(t)), ('foreign CPU %', fo(t)), ('load', ld(t))])
    table('Memory (VmRSS sum of each end, MiB, median) and start time (ms, min/median/max)', [(f'{w} {e}', lambda n, w=w, e=e: (lambda v: '-' if not v else f'{statistics.median(v) / 1024:.1f}')(vals(n, 'mem', lambda r: r[f'{w}{e}_kb']))) for w in ('idle', 'full') for e in 'AB'] +
          [('KiB per conn A', lambda n: (lambda v: '-' if not v else f'{statistics.median(v):.1f}')(vals(n, 'mem', lambda r: (r['fullA_kb'] - r['idleA_kb']) / r['open']))), ('KiB per conn B', lambda n: (lambda v: '-' if not v else f'{statistics.median(v):.1f}')(vals(n, 'mem', lambda r: (r['fullB_kb'] - r['idleB_kb']) / r['open']))),
           ('open', lambda n: mmm(vals(n, 'mem', lambda r: r['open']))), ('1000 opens took s', lambda n: mmm(vals(n, 'mem', lambda r: r['secs']), '{:.2f}')), ('A start -> first reply', lambda n: mmm(vals(n, 'start', lambda r: r['a_ms']))), ('both cold', lambda n: mmm(vals(n, 'start', lambda r: r['both_ms'])))])
    bad = [(r['peer'], r['test'], r['failed']) for r in rows if 'failed' in r]
    if bad:
        print('\nFailures:')
        for b in bad: print('-', *b)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=5); ap.add_argument('--peers', default=''); ap.add_argument('--tests', default='mem,bulk1,bulk1p,bulk8,pp1,pp1u,pp64,new1,new8')
    ap.add_argument('--out', default=f'{P.W}/run/results.jsonl'); ap.add_argument('--retries', type=int, default=1); ap.add_argument('--first', type=int, default=1, help='number of the first round'); ap.add_argument('--memrounds', default='1,2,3,4,5'); ap.add_argument('--maxforeign', type=float, default=0.10)
    ap.add_argument('--wires', nargs='?', const=';'.join(WIRES), help='names of wires, separated by semicolons'); ap.add_argument('--smoke', action='store_true'); ap.add_argument('--report', nargs='*'); ap.add_argument('--base', default='plain'); ap.add_argument('--deadline', type=float, default=0, help='stop before a new peer after so many seconds')
    a = ap.parse_args()
    if a.report is not None: return report(a.report or [a.out], a.base)
    cgroups()
    P.make_keys()
    ps = [P.BY[n] for n in a.peers.split(',')] if a.peers else P.ALL
    if a.smoke:
        for c in ps:
            peer, ctx = c(), Ctx(c.name)
            try:
                if peer.net: P.sh(f'{HERE}/setup-netns {peer.net[0]}')
                print(c.name, up(peer, ctx), client(['bulk', *peer.target, 1, 1]), client(['pp', *peer.target, 0.5, 1]), flush=True)
            except Exception as e: print(c.name, 'FAILED', e, flush=True)
            finally:
                ctx.stop()
                if peer.net: P.sh(f'{HERE}/setup-netns {peer.net[1]}')
        return
    t0 = time.monotonic()
    with open(a.out, 'a') as out:
        for rnd in range(a.first, a.first + a.rounds):
            if a.wires:
                run_wires(ps, a.wires.split(';'), rnd, out)
                continue
            for c in ps:
                if a.deadline and time.monotonic() - t0 > a.deadline: print('deadline'); return
                run_peer(c, rnd, [t for t in a.tests.split(',') if t != 'mem' or str(rnd) in a.memrounds.split(',')], out, a.retries, a.maxforeign)


if __name__ == "__main__":
    main()
