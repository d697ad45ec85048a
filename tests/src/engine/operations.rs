//! The 210 operations of the engine's API and how a path finds one, by the rules that were measured (docs/engine.md): matrix parameters and a trailing slash pass; `//`, dot segments, encoded letters of a literal and upper
//! case do not; a known path with another method is 405.

use std::sync::LazyLock;

/// One operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// HTTP method.
    pub method: &'static str,
    /// Path below the API, with `{name}` for parameters.
    pub template: &'static str,
    /// `R`, `R!`, `R#`, `S`, `A`, `P` or `W`, as observed.
    pub class: &'static str,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To an operation, with the values of its path parameters.
    Operation(&'static Operation, Vec<String>),
    /// There is the path, but not with this method.
    MethodNotAllowed,
    /// There is no such path.
    NotFound,
    /// The path is ambiguous or not readable.
    BadPath,
}

static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    // What there is to find is data, and in one place; how it is found is not what the gateway does.
    let lines = include_str!("../../../gateway-proto/data/engine-api.tsv").lines();
    let rows = lines.filter(|line| !line.starts_with('#') && !line.starts_with("method\t"));
    rows.filter_map(|line| {
        let mut cells = line.split('\t');
        Some(Operation { method: cells.next()?, template: cells.next()?, class: cells.next()? })
    })
    .collect()
});

/// Every operation.
pub fn all() -> &'static [Operation] {
    &OPERATIONS
}

/// Finds the operation of a method and a raw path below the API (`/channels/…`).
pub fn route(method: &str, path: &str) -> Route {
    let Some(segments) = segments(path) else { return Route::NotFound };
    let templates: Vec<_> = all().iter().filter(|operation| fits(operation.template, &segments)).collect();
    // The one with the most literal characters is the resource; its methods are all there are.
    let Some(best) = templates.iter().map(|operation| literals(operation.template)).max() else {
        return Route::NotFound;
    };
    let method = if method == "HEAD" { "GET" } else { method };
    let mut resource = templates.into_iter().filter(|operation| literals(operation.template) == best);
    let Some(operation) = resource.find(|operation| operation.method == method) else {
        return Route::MethodNotAllowed;
    };
    let names = operation.template.split('/').skip(1);
    let values = names.zip(&segments).filter(|(name, _)| name.starts_with('{'));
    match values.map(|(_, value)| decoded(value)).collect::<Option<Vec<_>>>() {
        Some(parameters) => Route::Operation(operation, parameters),
        None => Route::BadPath,
    }
}

/// The segments of a path without matrix parameters and trailing slash.
fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix('/')?;
    let mut segments: Vec<_> = path.split('/').map(without_matrix).collect();
    if segments.len() > 1 && segments.last() == Some(&"") {
        segments.pop();
    }
    let odd = ["", ".", "..", "%2e", "%2e%2e"];
    let is_odd = segments.iter().any(|segment| odd.contains(&segment.to_ascii_lowercase().as_str()));
    (!is_odd).then_some(segments)
}

/// A segment up to its first `;`.
pub fn without_matrix(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

fn fits(template: &str, segments: &[&str]) -> bool {
    let parts: Vec<_> = template.split('/').skip(1).collect();
    let fits_part = |(part, segment): (&&str, &&str)| match part.strip_prefix('{') {
        // Parameters that are numbers in the engine take nothing else.
        Some("messageId}" | "metaDataId}" | "eventId}") => segment.bytes().all(|byte| byte.is_ascii_digit()),
        Some(_) => true,
        None => part == segment,
    };
    parts.len() == segments.len() && parts.iter().zip(segments).all(fits_part)
}

fn literals(template: &str) -> usize {
    template.split('/').filter(|part| !part.starts_with('{')).map(|part| part.len() + 1).sum()
}

/// Percent-decoding of a path parameter or a form value; none: not readable, or an encoded slash.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(['/', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(method: &str, path: &str) -> Option<&'static str> {
        match route(method, path) {
            Route::Operation(operation, _) => Some(operation.template),
            Route::MethodNotAllowed | Route::NotFound | Route::BadPath => None,
        }
    }

    #[test]
    fn all_operations_are_there() {
        assert_eq!(all().len(), 210);
    }

    #[test]
    fn matrix_parameters_and_trailing_slashes_pass_as_they_do_in_the_engine() {
        let stop = Some("/channels/{channelId}/_stop");
        for path in ["/channels/ID/_stop", "/channels/ID;x=1/_stop", "/channels;v=1/ID/_stop", "/channels/ID/_stop;y"] {
            assert_eq!(template("POST", path), stop, "{path}");
        }
        assert_eq!(template("GET", "/users/"), Some("/users"));
        assert_eq!(
            route("GET", "/extensions/JMS%20Sender/enabled"),
            Route::Operation(
                all().iter().find(|operation| operation.template == "/extensions/{extensionName}/enabled").unwrap(),
                vec!["JMS Sender".into()]
            )
        );
    }

    #[test]
    fn literals_win_and_odd_paths_lead_nowhere() {
        assert_eq!(template("GET", "/channels/idsAndNames"), Some("/channels/idsAndNames"));
        assert_eq!(template("GET", "/channels/ID"), Some("/channels/{channelId}"));
        assert_eq!(route("POST", "/channels/idsAndNames"), Route::MethodNotAllowed);
        for path in ["/channels//ID/_stop", "/./channels", "/channels/../channels", "/channels/ID/%5Fstop", "/CHANNELS"]
        {
            assert_eq!(route("POST", path), Route::NotFound, "{path}");
        }
        assert_eq!(route("GET", "/channels/a%2fb"), Route::BadPath);
    }
}
