//! The matrix as a page for people: the content of `docs/permissions.md`.

use std::fmt::Write;

use gateway_proto::api::platform::Role;

use super::{MATRIX, Relation, allows, may_manage, name, scopes};

const ROLES: &[Role] = &[Role::Owner, Role::Admin, Role::Operator, Role::Viewer, Role::Auditor];

/// The document, generated; a test compares it with the file.
pub fn document() -> String {
    let mut text = String::from(
        "# Permissions\n\nGenerated from the permission matrix of `gateway-control` (`service/permission.rs`); do not edit. To bring it up to \
         date: `UPDATE_DOCS=1 cargo test -p gateway-control permission`.\n\nA user acts for the own organization only. In a cell: on which side \
         that organization has to be. **own**: the object belongs to it (its server, its channel, its request, a grant of its \
         channel, a connection to its server). **peer**: it is the other side of that relationship. **stranger**: it has nothing \
         to do with the object yet. `-`: forbidden.\n\nA role that is not allowed is answered with `forbidden`. An object of others is \
         answered with `not_found`, as if there was none. The wrong side of a relationship is answered with `wrong_state`, which names \
         the side that could. When an act is possible at all is in `state-machines.md`.\n\n",
    );
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("invariant: writing to a String does not fail");
        text.push('\n');
    };
    let heads: Vec<_> = ROLES.iter().map(|role| name(*role)).collect();
    line(format_args!("| act | what | {} |", heads.join(" | ")));
    line(format_args!("|---|---|{}", "---|".repeat(ROLES.len())));
    for rule in MATRIX {
        let cells: Vec<_> = ROLES.iter().map(|role| cell(*role, rule)).collect();
        line(format_args!("| `{}` | {} | {} |", rule.act.as_str(), rule.act.what(), cells.join(" | ")));
    }
    let scopes: Vec<_> = scopes().iter().map(|scope| format!("`{scope}`")).collect();
    line(format_args!(
        "\n## Tokens\n\nA token for automation acts as its user, and needs the noun of an act among its scopes: {}. It makes no tokens, \
         changes no password, adds no users, changes no roles and invites nobody.",
        scopes.join(", ")
    ));
    line(format_args!("\n## Users\n\nWho may add, change and remove users of which role; the last owner stays.\n"));
    line(format_args!("| role | {} |", heads.join(" | ")));
    line(format_args!("|---|{}", "---|".repeat(ROLES.len())));
    for other in ROLES {
        let cells: Vec<_> = ROLES.iter().map(|role| if may_manage(*role, *other) { "yes" } else { "-" }).collect();
        line(format_args!("| {} | {} |", name(*other), cells.join(" | ")));
    }
    text
}

fn cell(role: Role, rule: &super::Rule) -> String {
    let sides: Vec<_> = Relation::ALL
        .iter()
        .filter(|relation| allows(role, **relation, rule.act))
        .map(|relation| relation.as_str())
        .collect();
    if sides.is_empty() { "-".to_owned() } else { sides.join(", ") }
}
