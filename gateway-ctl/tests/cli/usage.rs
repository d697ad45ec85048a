//! The command line itself: help, mistakes, pipes, pages for shells and readers.

use std::collections::BTreeSet;

use gateway_proto::peering::{Act, AgreementAct, By, ConnectionAct, GrantAct, PeeringAct};

use crate::world::World;

#[tokio::test]
async fn help_is_an_answer_and_documents_the_exit_codes() {
    let world = World::new();
    let outcome = world.run(&["--help"]).await;
    assert_eq!(outcome.code, 0);
    for part in ["Exit codes:", "  1   the answer is no", "  64  wrong usage"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
    assert_eq!(world.run(&["--version"]).await.stdout, format!("gateway-ctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn mistakes_on_the_command_line_exit_with_64() {
    let world = World::signed_in().await;
    for args in [
        &[][..],
        &["nonsense"],
        &["server"],
        &["server", "create"],
        &["organization", "update"],
        &["channel", "update", "x"],
        &["grant", "offer", "--channel", "c", "--to", "a", "--expires", "soon"],
        &["status", "--wait", "happy"],
        &["gateway", "audit", "list", "--act", "nonsense"],
        &["status", "--timeout", "1s"],
        &["status", "--watch", "--wait", "connected"],
        &["--profile", "../x", "whoami"],
        &["login", "--control", "http://a.example", "--email", "e", "--password-file", "f"],
        &["login", "--pin", "00", "--email", "e", "--password-file", "f"],
        &["login", "--email", "e"],
        &["login", "--oidc", "--email", "e"],
        &["login", "--paste", "--email", "e", "--password-file", "f"],
        &["relay", "add", "--name", "r"],
        &["relay", "update", "r", "--operator-token-file", "t"],
        &["relay", "update", "r", "--operator-token-file", "t", "--host", "h"],
        &["relay", "list", "--control", "https://elsewhere.example"],
        &["user", "create", "--email", "e", "--name", "n", "--role", "king", "--password-file", "f"],
    ] {
        let outcome = world.run(args).await;
        assert_eq!(outcome.code, 64, "{args:?}: {outcome:?}");
        assert!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{args:?}: {outcome:?}");
    }
}

/// What people may do by the table of the platform.
fn acts<A: Act>() -> BTreeSet<String> {
    A::TABLE.iter().filter(|row| row.by != By::System).map(|row| row.act.to_string()).collect()
}

#[tokio::test]
async fn every_step_that_people_may_take_has_a_verb() {
    let world = World::new();
    for (acts, nouns) in [
        (acts::<PeeringAct>(), &["peering"][..]),
        (acts::<AgreementAct>(), &["agreement"][..]),
        (acts::<GrantAct>(), &["grant"][..]),
        (acts::<ConnectionAct>(), &["connection", "admin"][..]),
    ] {
        // The own half of a pause or suspension is taken back with `resume`, while the other one stays.
        for act in acts.iter().filter(|act| *act != "release") {
            let mut found = false;
            for noun in nouns {
                found |= world.run(&[*noun, act.as_str(), "--help"]).await.code == 0;
            }
            assert!(found, "{nouns:?} have no verb '{act}'");
        }
    }
}

#[tokio::test]
async fn a_reader_that_had_enough_is_no_error() {
    let world = World::new();
    for args in [&["man"][..], &["--help"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = world.command(args).stdout(writer).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn completions_and_manual_pages_cover_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = world.run(&["completions", shell]).await;
        assert!(outcome.code == 0 && outcome.stdout.contains("enrollment-code"), "{shell}");
    }
    assert_eq!(world.run(&["man", "--dir", "pages"]).await.code, 0);
    for page in ["gateway-ctl.1", "gateway-ctl-grant-approve.1"] {
        assert!(world.path("pages").join(page).is_file(), "{page}");
    }
}

#[tokio::test]
async fn without_a_place_for_profiles_the_way_out_is_named() {
    let world = World::new();
    let output = world.command(&["whoami"]).env_remove("GATEWAY_CTL_HOME").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("GATEWAY_CTL_HOME"));
}
