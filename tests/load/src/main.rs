//! The control plane under the load of a whole fleet: one process that speaks the gateways' protocol over TLS on
//! loopback for every one of them, against a control plane of its own. Prints the table that docs/load.md publishes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`seed`] | fills the database with organizations, agreements, grants and connections |
//! | [`fleet`] | the gateways: a task each with its key, its watch and its newest policy, without tunnels |
//! | [`owners`] | the people of the organizations, who grant and revoke |
//! | [`cutting`] | two real gateways among the others, and how fast a revocation resets their streams |
//! | [`measure`] | how times are spread, what a process uses |
//!
//! The steps: everybody connects; nothing happens; channels are granted and grants are revoked, one after the other and
//! eight at a time; streams of real gateways are cut; the control plane is stopped and started under everybody.

mod cutting;
mod fleet;
mod measure;
mod owners;
mod seed;

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use gateway_tests::platform::{Platform, PlatformOptions};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    cutting::Cutting,
    fleet::Fleet,
    measure::{Spread, Table, Usage, mib},
    owners::Owners,
    seed::SERVERS,
};

/// Load on a control plane by a whole fleet of gateways.
#[derive(Debug, Parser)]
struct Args {
    /// How many gateways; several for one run each, side by side in the table.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000])]
    gateways: Vec<usize>,
    /// Channels granted and revoked, each one after the other and eight at a time.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Streams of real gateways cut by a revocation; an organization may tell a partner 300 things at once, and each of these is two.
    #[arg(long, default_value_t = 140)]
    cuts: usize,
    /// Over how many seconds gateways spread their first attempt.
    #[arg(long, default_value_t = 20)]
    jitter: u64,
    /// Seconds of nothing happening.
    #[arg(long, default_value_t = 30)]
    idle: u64,
}

/// A revocation resets streams within this, 99 of 100, whatever the fleet.
const CUT_BAR: Duration = Duration::from_secs(1);
/// Longest wait for the whole fleet.
const FLEET_LIMIT: Duration = Duration::from_secs(900);
/// Changes at the same time in the second round.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("gateway-load: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let args = Args::parse();
    let most = args.gateways.iter().copied().max().unwrap_or_default();
    raise_file_limit(u64::try_from(most)? + 1_000)?;
    for gateways in &args.gateways {
        ensure!(
            *gateways >= 2 * SERVERS && gateways.is_multiple_of(SERVERS),
            "--gateways {gateways}: expected a multiple of {SERVERS}, from {}",
            2 * SERVERS
        );
    }
    let mut tables = Vec::new();
    for gateways in &args.gateways {
        // A runtime for each, so that nothing of one fleet is left when the next one comes.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        tables.push(runtime.block_on(run(&args, *gateways))?);
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    say(&Table::side_by_side(&tables));
    Ok(())
}

/// Every gateway is an open file here, and one at the control plane, which inherits the limit.
fn raise_file_limit(wanted: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= wanted, "this machine allows {hard} open files, {wanted} are needed");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard)?)
}

async fn run(args: &Args, gateways: usize) -> anyhow::Result<Table> {
    let mut table = Table::default();
    let options = PlatformOptions {
        log_filter: "warn".into(),
        // All gateways come from one address here, which may hold a quarter of the connections and ask so many times.
        more_control: format!("[limits]\nmax_connections = {}\nrequests_per_second = 1000000\n", (gateways + 500) * 4),
        ..PlatformOptions::default()
    };
    let mut platform = Platform::start_with(options).await?;
    platform.add_relay().await?;
    let mut cutting = Cutting::set(&platform).await?;
    say(&format!("{gateways} gateways: writing the database …"));
    let stopped = platform.control.terminate(Duration::from_secs(30)).await?;
    ensure!(stopped.success(), "the control plane ended with {stopped}");
    let begun = Instant::now();
    let seeded = seed::seed(&seed::database(&platform), gateways).await.context("cannot fill the database")?;
    table.row("gateways", seeded.gateways.len());
    table.row("connections", seeded.connections.len());
    say(&format!("written after {:.1?}; starting the control plane …", begun.elapsed()));

    let begun = Instant::now();
    platform.restart_control().await?;
    table.row("start of the control plane until it is ready", time(platform.control.started_in()));
    seed::compiled(&seed::database(&platform)).await?;
    let compiled = begun.elapsed();
    table.row("every policy compiled anew (the map of relays changed)", time(compiled));
    let before = Usage::of(platform.control.pid())?;

    let begun = Instant::now();
    let fleet = Fleet::start(&platform, &seeded, Duration::from_secs(args.jitter))?;
    let each = fleet.all_have_policies(FLEET_LIMIT).await.context("not everybody got a policy")?;
    table.row("first connection of all", time(begun.elapsed()));
    table.row("— connect to policy, one gateway", &each);
    fleet.quiet().await;

    idle(args, &platform, &fleet, &before, &mut table).await?;
    let owners = Owners::new(&platform, &seeded, &fleet)?;
    changes(args, &platform, &owners, &fleet, &mut table).await?;
    let (near, far) = cutting.cut(&platform, args.cuts).await?;
    table.row("revoked by its owner until the sending engine sees RST", &near);
    table.row("— the receiving engine", &far);
    for (end, times) in [("sending", &near), ("receiving", &far)] {
        table.row(&format!("— how many of {}, {end} engine", args.cuts), times.histogram());
        let slow = times.at(99).unwrap_or_default();
        // Of fewer than a hundred the longest would have to keep it, on whatever machine.
        ensure!(
            args.cuts < 100 || slow < CUT_BAR,
            "the {end} engine waits {slow:?} for a revocation (99 of 100), and may wait {CUT_BAR:?}"
        );
    }
    restart(&mut platform, &fleet, &mut table).await?;
    // Dropped with its tasks before the processes, so that nobody complains of a control plane that has gone.
    drop(fleet);
    say(&table.to_string());
    Ok(table)
}

/// Nothing changes: what do ten thousand heartbeats cost?
async fn idle(
    args: &Args,
    platform: &Platform,
    fleet: &Fleet,
    before: &Usage,
    table: &mut Table,
) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.idle);
    let (from, policies) = (Usage::of(platform.control.pid())?, fleet.policies());
    tokio::time::sleep(time).await;
    let to = Usage::of(platform.control.pid())?;
    let gateways = u64::try_from(fleet.len())?;
    let each = to.memory.saturating_sub(before.memory) / gateways;
    table.row("resident memory", format!("{:.0} MiB", mib(to.memory)));
    table.row("— a watching gateway", format!("{:.1} KiB", mib(each) * 1024.0));
    table.row("processor when nothing changes", format!("{:.1} % of a core", to.cores_since(&from, time) * 100.0));
    let sent = fleet.policies() - policies;
    table.row("policies sent when nothing changes", sent);
    ensure!(sent == 0, "{sent} policies were sent although nothing changed");
    Ok(())
}

async fn changes(
    args: &Args,
    platform: &Platform,
    owners: &Owners<'_>,
    fleet: &Fleet,
    table: &mut Table,
) -> anyhow::Result<()> {
    for (at_once, how) in [(1, "one after the other"), (AT_ONCE, "eight at a time")] {
        let (from, policies) = (Usage::of(platform.control.pid())?, fleet.policies());
        let granted = owners.grant(args.changes, at_once).await?;
        let cost = Usage::of(platform.control.pid())?.processor - from.processor;
        let sent = fleet.policies() - policies;
        let offered: Spread = granted.iter().map(|granted| granted.reached).collect();
        let carried: Spread = granted.iter().map(|granted| granted.carries).collect();
        table.row(&format!("a grant, {how}: approval until both gateways have it"), &offered);
        table.row("— until both let data pass", &carried);
        table.row("— policies sent per grant", ratio(sent, args.changes)?);
        table.row("— processor per grant", time(cost / u32::try_from(args.changes)?));

        let (from, policies) = (Usage::of(platform.control.pid())?, fleet.policies());
        let revoked = owners.revoke(&granted, at_once).await?;
        let cost = Usage::of(platform.control.pid())?.processor - from.processor;
        let sent = fleet.policies() - policies;
        table.row(&format!("a revocation, {how}: until both gateways have it"), &revoked);
        table.row("— policies sent per revocation", ratio(sent, args.changes)?);
        table.row("— processor per revocation", time(cost / u32::try_from(args.changes)?));
    }
    Ok(())
}

/// Everybody is thrown out at once, and comes back by himself.
async fn restart(platform: &mut Platform, fleet: &Fleet, table: &mut Table) -> anyhow::Result<()> {
    let begun = Instant::now();
    let ended = platform.control.terminate(Duration::from_secs(60)).await?;
    ensure!(ended.success(), "the control plane ended with {ended}");
    table.row("orderly stop", time(begun.elapsed()));
    fleet.all_away(Duration::from_secs(30)).await?;
    let links = fleet.links();
    let begun = Instant::now();
    platform.restart_control().await?;
    let each = fleet.all_back(&links, FLEET_LIMIT).await.context("not everybody came back")?;
    table.row("start again: everybody is back", time(begun.elapsed()));
    table.row("— out of reach, one gateway", &each);
    table.row("— attempts of one gateway at most", fleet.most_attempts());

    let links = fleet.links();
    let begun = Instant::now();
    platform.control.kill_and_reap();
    platform.restart_control().await?;
    let each = fleet.all_back(&links, FLEET_LIMIT).await.context("not everybody came back after the kill")?;
    table.row("killed and started: everybody is back", time(begun.elapsed()));
    table.row("— out of reach, one gateway", &each);
    Ok(())
}

fn ratio(number: u64, of: usize) -> anyhow::Result<String> {
    Ok(format!("{:.2}", f64::from(u32::try_from(number)?) / f64::from(u32::try_from(of)?)))
}

fn time(time: Duration) -> String {
    measure::short(time)
}

fn say(text: &str) {
    // A reader that went away is not our failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}
