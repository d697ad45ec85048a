#!/usr/bin/env python3
"""report.py RESULTS.jsonl OUT_DIR [--missing a,b]: the measured part of docs/performance.md and its charts.

Every figure is a median over the rounds of one run with the spread beside it; ratios are to kernel TCP of the same run
(`plain`, for relayed rows `plain-routed`), because absolute numbers drift with the machine."""
import html, json, os, re, statistics, sys

BEGIN, END = '<!-- measured: begin -->', '<!-- measured: end -->'
RELAYED = ('plain-routed', 'gateway-relayed-udp', 'gateway-relayed-tls', 'quinn-urelay', 'iroh-relayed')


class Results:
    def __init__(s, path):
        s.rows = [json.loads(line) for line in open(path)]
        s.peers = list(dict.fromkeys(r['peer'] for r in s.rows if 'wire' not in r))

    def values(s, peer, test, key):
        found = (key(r) for r in s.rows if r['peer'] == peer and r['test'] == test and 'failed' not in r)
        return [v for v in found if v is not None]

    def median(s, peer, test, key):
        values = s.values(peer, test, key)
        return statistics.median(values) if values else None


def get(name): return lambda r: r.get(name)
def per_gib(end): return lambda r: r[f'cpu{end}'] / (r['bytes'] / 2**30) if r.get('bytes') else None
def base(peer): return 'plain-routed' if peer in RELAYED else 'plain'
def number(v): return '–' if v is None else f'{v:.0f}' if v >= 100 else f'{v:.1f}' if v >= 10 else f'{v:.2f}'


# title, test, value, unit, larger is better
FIGURES = [
    ('bulk, 1 stream', 'bulk1', get('mib_s'), 'MiB/s', True), ('bulk, 8 streams', 'bulk8', get('mib_s'), 'MiB/s', True),
    ('ping-pong p50', 'pp1', get('p50_us'), 'µs', False), ('ping-pong p99', 'pp1', get('p99_us'), 'µs', False),
    ('64 connections', 'pp64', get('per_s'), 'messages/s', True),
    ('new connections', 'new1', get('per_s'), '/s', True), ('new connections, 8 at a time', 'new8', get('per_s'), '/s', True),
]

# The same, of other sizes and directions: messages named by their size and that of their answer.
OTHERS = [
    ('bulk back', 'back1', get('mib_s'), 'MiB/s', True), ('bulk back, 8 streams', 'back8', get('mib_s'), 'MiB/s', True), ('bulk both ways at once', 'both1', get('mib_s'), 'MiB/s', True),
    ('100 B, 100 B, p50', 'pp100b', get('p50_us'), 'µs', False), ('10 KiB, 100 B, p50', 'pp10k', get('p50_us'), 'µs', False),
    ('1 MiB, 100 B, p50', 'pp1m', get('p50_us'), 'µs', False), ('100 B, 1 MiB, p50', 'ppback1m', get('p50_us'), 'µs', False),
    ('1 KiB, 100 B beside a transfer, p50', 'beside1', get('p50_us'), 'µs', False), ('beside 8 transfers, p50', 'beside8', get('p50_us'), 'µs', False),
    ('10 KiB, 10 KiB, 64 connections', 'pp64x10k', get('per_s'), 'messages/s', True), ('1 MiB, 1 MiB, 8 connections', 'pp8x1m', get('per_s'), 'messages/s', True),
]


def ratio(results, peer, figure):
    _, test, key, _, _ = figure
    ours, plain = results.median(peer, test, key), results.median(base(peer), test, key)
    return ours / plain if ours is not None and plain else None


def cell(results, peer, figure):
    values = results.values(peer, figure[1], figure[2])
    if not values: return '–'
    r = ratio(results, peer, figure)
    return f'{number(statistics.median(values))} ({min(values):.0f}–{max(values):.0f}), **{r:.3f}**' if r is not None else number(statistics.median(values))


def figures(results, peers, columns):
    out = ['| | ' + ' | '.join(f'{f[0]}, {f[3]}' for f in columns) + ' |', '|---' * (len(columns) + 1) + '|']
    return out + [f'| {p} | ' + ' | '.join(cell(results, p, f) for f in columns) + ' |' for p in peers] + ['']


def table(results, peers, title):
    out = [f'### {title}', '', *figures(results, peers, FIGURES)]
    if any(r['test'] == f[1] for r in results.rows for f in OTHERS): out += ['Other sizes and directions; messages by their size and that of their answer:', '', *figures(results, peers, OTHERS)]
    out += ['| | CPU s/GiB, A / B / relay | RSS idle, MiB, A / B | with 1,000 connections | KiB per connection | start of A to first reply, ms | foreign CPU |', '|---' * 7 + '|']
    for p in peers:
        cpu = ' / '.join(number(results.median(p, 'bulk1', per_gib(e))) for e in 'ABR')
        idle, full = (' / '.join(number(results.median(p, 'mem', lambda r, e=e: r.get(f'{w}{e}_kb', 0) / 1024)) for e in 'AB') for w in ('idle', 'full'))
        each = ' / '.join(number(results.median(p, 'mem', lambda r, e=e: (r[f'full{e}_kb'] - r[f'idle{e}_kb']) / r['open'] if r.get('open') else None)) for e in 'AB')
        foreign = results.values(p, 'bulk1', get('foreign'))
        out.append(f'| {p} | {cpu} | {idle} | {full} | {each} | {number(results.median(p, "start", get("a_ms")))} | {max(foreign, default=0):.0%} |')
    return out + ['']


def millis(name): return lambda r: r[name] / 1e3 if name in r else None


WIRE_FIGURES = [('bulk, MiB/s', 'bulkw', get('mib_s')), ('messages alone, p50 ms', 'ppw', millis('p50_us')), ('beside a transfer, p50 ms', 'ppbulk', millis('p50_us')), ('beside a transfer, p99 ms', 'ppbulk', millis('p99_us')),
                ('messages of 10 KiB beside 8 transfers, p50 ms', 'ppkept', millis('p50_us')), ('messages of 10 KiB beside 8 transfers, p99 ms', 'ppkept', millis('p99_us')), ('what the line carries meanwhile, MiB/s', 'ppkept', get('link_mib_s'))]


def wire_tables(results):
    """One table a figure: wires down, peers across; in bold the ratio to plain TCP."""
    wires = list(dict.fromkeys(r['wire'] for r in results.rows if 'wire' in r))
    peers = list(dict.fromkeys(r['peer'] for r in results.rows if 'wire' in r))
    def median(peer, wire, test, key):
        found = [v for v in (key(r) for r in results.rows if r['peer'] == peer and r.get('wire') == wire and r['test'] == test and 'failed' not in r) if v is not None]
        return statistics.median(found) if found else None
    out = ['### Over a wire with delay and loss', '', 'Round trip and loss of each direction, made by `gateway-hop` between the two ends; one transfer of 8 s from its first byte on, messages of 1 KiB with answers of 100 bytes.', '']
    for title, test, key in WIRE_FIGURES:
        out += [f'| {title} | ' + ' | '.join(peers) + ' |', '|---' * (len(peers) + 1) + '|']
        for wire in wires:
            if not any(r['test'] == test and r.get('wire') == wire for r in results.rows): continue
            plain, cells = median('plain', wire, test, key), []
            for peer in peers:
                v = median(peer, wire, test, key)
                cells.append('–' if v is None else number(v) if peer == 'plain' or not plain else f'{number(v)}, **{v / plain:.2f}**')
            out.append(f'| {wire} | ' + ' | '.join(cells) + ' |')
        out.append('')
    return out


def chart(results, figure, path):
    """Horizontal bars of the ratio to plain TCP, ours in colour."""
    bars = [(p, ratio(results, p, figure)) for p in results.peers if p not in ('plain', 'plain-routed')]
    bars = sorted((b for b in bars if b[1] is not None), key=lambda b: -b[1] if figure[4] else b[1])
    if not bars: return None
    top, height = max(b[1] for b in bars), 24
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height * len(bars) + 40}" font-family="sans-serif" font-size="13">',
           f'<title>{html.escape(figure[0])}: ratio to plain TCP</title>', f'<text x="8" y="20" font-weight="bold">{html.escape(figure[0])}, ratio to plain TCP ({"more" if figure[4] else "less"} is better)</text>']
    for i, (peer, r) in enumerate(bars):
        y, color = 34 + i * height, '#0a6' if peer.startswith('gateway') else '#99a'
        svg += [f'<text x="8" y="{y + 15}">{html.escape(peer)}</text>', f'<rect x="190" y="{y + 2}" width="{max(2, 440 * r / top):.0f}" height="{height - 6}" fill="{color}"/>',
                f'<text x="{196 + 440 * r / top:.0f}" y="{y + 15}">{r:.3f}</text>']
    open(path, 'w').write('\n'.join(svg + ['</svg>', '']))
    return os.path.basename(path)


def main():
    source, out_dir = sys.argv[1], sys.argv[2]
    missing = sys.argv[sys.argv.index('--missing') + 1].split(',') if '--missing' in sys.argv else []
    results = Results(source)
    rounds = len({r['round'] for r in results.rows})
    failed = [f'{r["peer"]} {r["test"]}' for r in results.rows if 'failed' in r]
    direct = [p for p in results.peers if p not in RELAYED]
    relayed = [p for p in results.peers if p in RELAYED]
    text = [BEGIN, '', f'{len(results.rows)} measurements in {rounds} rounds, peers alternated; median (least–most), in bold the ratio to plain TCP of the same run.',
            f'Load average at most {max(r.get("load", 0) for r in results.rows):.1f}. Kernel {os.uname().release}, {os.cpu_count()} CPUs.',
            'Peers that were not there: ' + (', '.join(filter(None, missing)) or 'none') + '. Failed: ' + (', '.join(failed) or 'none') + '.', '']
    text += table(results, direct, 'Direct')
    if any('wire' in r for r in results.rows): text += wire_tables(results)
    if relayed: text += table(results, relayed, 'Relayed, the direct link down')
    charts = os.path.join(out_dir, 'performance')
    os.makedirs(charts, exist_ok=True)
    for figure in FIGURES:
        name = chart(results, figure, os.path.join(charts, re.sub(r'[^a-z0-9]+', '-', figure[0].lower()) + '.svg'))
        if name: text.append(f'![{figure[0]}](performance/{name})')
    text += ['', END]
    page = os.path.join(out_dir, 'performance.md')
    old = open(page).read()
    head, tail = old.split(BEGIN)[0], old.split(END)[1]
    open(page, 'w').write(head + '\n'.join(text) + tail)


if __name__ == '__main__':
    main()
