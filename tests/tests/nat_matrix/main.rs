//! The whole matrix: every network with every network, both dial orders, 50 ms between any two of them. Not in the default layers of `tests/run`:
//! `tests/run nat-matrix`; `UPDATE_DOCS=1 tests/run nat-matrix` writes docs/nat-matrix.md. Needs root.

use std::io::Write;

use anyhow::ensure;
use gateway_tests::{
    measured,
    natlab::{
        Matrix, Report,
        RouterKind::{self, CarrierGrade, Firewall, PortFilter, PreservedPort, RandomPort},
    },
};

/// Pairs at a time: more make a small machine slow and the times meaningless.
const AT_A_TIME: usize = 3;

#[tokio::test]
async fn every_network_meets_every_network_within_a_second_and_as_far_up_the_ladder_as_possible() -> anyhow::Result<()>
{
    let all = RouterKind::ALL;
    let matrix = Matrix::start(&all, &all).await?;
    let pairs: Vec<_> = all.iter().flat_map(|one| all.iter().map(|other| (*one, *other))).collect();
    let outcomes = matrix.play(&pairs, AT_A_TIME, |outcome| say(&outcome.line())).await?;
    let report = Report::new(&outcomes);
    say(&format!("\n{}\n{}", report.table(), report.summary()));
    measured!("NAT matrix: {}", report.summary());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        report.write()?;
    }
    let trouble = matrix.trouble();
    ensure!(trouble.is_empty(), "errors were logged:\n{trouble}");
    let misses = report.misses();
    ensure!(
        misses.is_empty(),
        "{} pairs are not as the oracle says:\n{}",
        misses.len(),
        misses.iter().map(|miss| miss.line() + "\n").collect::<String>()
    );
    Ok(())
}

#[tokio::test]
async fn with_guessing_allowed_a_nat_with_random_ports_meets_the_others_directly() -> anyhow::Result<()> {
    let others = [PortFilter, PreservedPort, Firewall, CarrierGrade];
    let all = [&[RandomPort][..], &others].concat();
    let matrix = Matrix::start_guessing(&all, &all).await?;
    let pairs: Vec<_> = others.iter().flat_map(|other| [(RandomPort, *other), (*other, RandomPort)]).collect();
    let outcomes = matrix.play(&pairs, 2, |outcome| say(&outcome.line())).await?;
    let report = Report::new(&outcomes);
    measured!("port guessing: {}", report.summary());
    // A run finds the port in 98 of 100 cases.
    let misses: String = report.misses().iter().map(|miss| miss.line() + "\n").collect();
    ensure!(report.misses().len() <= 1, "guessing failed too often:\n{misses}");
    Ok(())
}

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}
