//! Some pairs of networks that stand for the others; all of them: `tests/run nat-matrix`.

use std::io::Write;

use anyhow::ensure;
use gateway_tests::{
    measured,
    natlab::{
        Matrix, Report,
        RouterKind::{AddressFilter, CarrierGrade, Ipv6Only, MappedPort, OnlyProxy, PortFilter, Public, RandomPort},
    },
};

#[tokio::test]
async fn networks_of_every_sort_meet_within_a_second_and_as_far_up_the_ladder_as_possible() -> anyhow::Result<()> {
    let callers = [PortFilter, RandomPort, CarrierGrade, OnlyProxy, Ipv6Only];
    let listeners = [Public, AddressFilter, PortFilter, MappedPort, Ipv6Only];
    let matrix = Matrix::start(&callers, &listeners).await?;
    let pairs = [
        (PortFilter, Public),
        (PortFilter, AddressFilter),
        (PortFilter, PortFilter),
        (PortFilter, Ipv6Only),
        (RandomPort, Public),
        (RandomPort, AddressFilter),
        (RandomPort, PortFilter),
        (RandomPort, MappedPort),
        (PortFilter, MappedPort),
        (CarrierGrade, AddressFilter),
        (CarrierGrade, PortFilter),
        (OnlyProxy, Public),
        (OnlyProxy, Ipv6Only),
        (Ipv6Only, Public),
        (Ipv6Only, Ipv6Only),
    ];
    let outcomes = matrix.play(&pairs, 2, |outcome| drop(writeln!(std::io::stdout(), "{}", outcome.line()))).await?;
    let report = Report::new(&outcomes);
    measured!("pairs of networks: {}", report.summary());
    let misses: String = report.misses().iter().map(|miss| miss.line() + "\n").collect();
    ensure!(misses.is_empty(), "not as the oracle says:\n{misses}");
    let trouble = matrix.trouble();
    ensure!(trouble.is_empty(), "errors were logged:\n{trouble}");
    Ok(())
}
