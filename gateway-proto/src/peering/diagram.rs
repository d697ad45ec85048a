//! The table drawn as mermaid state diagrams: the content of `docs/state-machines.md`.

use std::fmt::Write;

use super::{Act, AgreementAct, ConnectionAct, GrantAct, PeeringAct, possible};

/// The document, generated; a test compares it with the file.
pub fn diagrams() -> String {
    let mut text = String::from(
        "# State machines\n\nDrawn from the transition table of `gateway-proto` (`peering/table.rs`); do not edit. \
         To bring it up to date: `UPDATE_DOCS=1 cargo test -p gateway-proto peering`.\n\n\
         What is not drawn is forbidden and answered with `wrong_state`. In brackets: who may do it. Repeating an act \
         whose result is in place already changes nothing and succeeds.\n",
    );
    section::<PeeringAct>(
        &mut text,
        "Owner: the asking organization. Unanswered for 14 days it expires. To oneself it is accepted at once.",
    );
    section::<AgreementAct>(
        &mut text,
        "Each side holds its own suspension: `release` lifts one's own while the other side's stays.",
    );
    section::<GrantAct>(
        &mut text,
        "Owner: the organization whose channel it is. An offer starts `pending`, a request `requested`; unanswered for \
         14 days it expires. `close`: the agreement, the channel or its server is gone. Inside a self-agreement a grant \
         is approved at once. The terms of a grant (`expires_at`, `max_streams`, \
         `bytes_per_second`, `receive_timeout_secs`, `behaviors`, `staleness_secs`, `require_post_quantum`) never change, \
         but that the owner may approve a request under tighter ones (the first four).",
    );
    section::<ConnectionAct>(
        &mut text,
        "Owner: the organization of the receiving server; of an admin connection, of the server whose engine is \
         administered. Channel data goes from provisioning to ready, an admin connection is offered first and expires \
         unanswered after 7 days; where the owner's side demands two persons, it is offered once the second one has \
         approved it. Each side holds its own pause: `release` lifts one's own \
         while the other side's stays. The end of a grant ends its connection, and the end of a connection ends its \
         grant: a grant in force without a connection would show access that nobody has.",
    );
    text
}

fn section<A: Act>(text: &mut String, note: &str) {
    let mut title = A::MACHINE.to_owned();
    title[..1].make_ascii_uppercase();
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("invariant: writing to a String does not fail");
        text.push('\n');
    };
    line(format_args!("\n## {title}\n\n{note}\n\n```mermaid\nstateDiagram-v2"));
    for status in A::START {
        line(format_args!("    [*] --> {status}"));
    }
    for row in A::TABLE {
        line(format_args!("    {} --> {}: {} [{}]", row.from, row.to, row.act, row.by.as_str()));
    }
    for status in A::STATUSES.iter().filter(|status| possible::<A>(**status).next().is_none()) {
        line(format_args!("    {status} --> [*]"));
    }
    line(format_args!("```"));
}
