//! What the engine serves beside its operations: pages, the files they load, and the start of the Administrator.

use super::{BodyRule, Pass};
use crate::admin::operation::{Class, Method};

/// Pages beside the API, by their first segment: all are files or the start of the Administrator.
const PAGES: [&str; 15] = [
    "index.html",
    "favicon.ico",
    "webstart",
    "webstart.jnlp",
    "launcher",
    "webadmin",
    "javadocs",
    "apiexamples",
    "css",
    "js",
    "img",
    "images",
    "fonts",
    "scripts",
    "installers",
];
/// What lies directly below `/api` and is no operation: the description of the API and the page that shows it.
const API_FILES: [&str; 3] = ["index.html", "openapi.json", "openapi.yaml"];
/// Where the files lie that this page loads.
const API_FOLDERS: [&str; 3] = ["css", "images", "lib"];

pub(super) fn judge_page(method: Method, first: &str, rest: &[&str]) -> Option<Pass> {
    match (first, rest) {
        // The web dashboard signs in by a form of its own.
        ("webadmin", ["Login.action"]) if method == Method::Post => Some(Pass {
            body: BodyRule::Login,
            class: Class::Session,
            ..read_only_page(Method::Get, "webadmin sign-in")?
        }),
        ("webstart" | "webstart.jnlp", _) => {
            let start_file = first == "webstart.jnlp" || rest.last().is_none_or(|file| file.ends_with(".jnlp"));
            Some(Pass { start_file, ..read_only_page(method, "webstart")? })
        }
        (first, _) if PAGES.contains(&first) => read_only_page(method, "page"),
        _ => None,
    }
}

pub(super) fn read_only_page(method: Method, template: &'static str) -> Option<Pass> {
    matches!(method, Method::Get | Method::Head).then_some(Pass {
        class: Class::Read,
        template,
        body: BodyRule::None,
        redaction: None,
        start_file: false,
        api: None,
    })
}

/// Whether segments below `/api` are those of its page. By name: an ending says nothing, as some servers take it off a
/// path and answer `/channels.json` with the channels.
pub(super) fn is_api_page(below: &[&str]) -> bool {
    match below {
        [] => true,
        [file] => API_FILES.contains(file),
        [folder, file] => API_FOLDERS.contains(folder) && is_static_file(file),
        _ => false,
    }
}

fn is_static_file(file: &str) -> bool {
    let endings = [".css", ".js", ".png", ".gif", ".ico"];
    file.starts_with(|c: char| c.is_ascii_alphanumeric())
        && file.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        && endings.iter().any(|ending| file.ends_with(ending))
}
